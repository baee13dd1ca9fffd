//! The calls of the guest. What changes something looks first whether it may; the rest is passed on.

use std::ffi::CStr;
use std::fs::File;
use std::io;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use std::time::Duration;

use virtiofsd::filesystem::{
    Context, Entry, Extensions, FileSystem, FsOptions, GetxattrReply, ListxattrReply, OpenOptions,
    SerializableFileSystem, SetattrValid, SetxattrFlags, ZeroCopyReader, ZeroCopyWriter,
};
use virtiofsd::fuse::{Attr, SetattrIn};
use virtiofsd::passthrough::PassthroughFs;

use super::{Handle, Inode, Served, check_name};

/// Calls that are passed on; those with files in front, once each of them may be changed.
macro_rules! passed_on {
    ($(
        $([$($changed:ident),*])?
        fn $name:ident $(<$generic:ident: $bound:ident>)? (
            $($argument:ident: $type:ty),*
        ) $(-> $returned:ty)?;
    )*) => {$(
        fn $name $(<$generic: $bound>)? (&self, $($argument: $type),*) $(-> $returned)? {
            $($(self.check_writable($changed)?;)*)?
            self.inner.$name($($argument),*)
        }
    )*};
}

impl FileSystem for Served {
    type Inode = Inode;
    type Handle = Handle;
    type DirIter = <PassthroughFs as FileSystem>::DirIter;

    passed_on! {
        fn init(capable: FsOptions) -> io::Result<FsOptions>;
        fn getattr(ctx: Context, inode: Inode, handle: Option<Handle>) -> io::Result<(Attr, Duration)>;
        fn readlink(ctx: Context, inode: Inode) -> io::Result<Vec<u8>>;
        fn read<W: ZeroCopyWriter>(
            ctx: Context, inode: Inode, handle: Handle, w: W, size: u32, offset: u64,
            lock_owner: Option<u64>, flags: u32
        ) -> io::Result<usize>;
        fn flush(ctx: Context, inode: Inode, handle: Handle, lock_owner: u64) -> io::Result<()>;
        fn fsync(ctx: Context, inode: Inode, datasync: bool, handle: Handle) -> io::Result<()>;
        fn release(
            ctx: Context, inode: Inode, flags: u32, handle: Handle, flush: bool,
            flock_release: bool, lock_owner: Option<u64>
        ) -> io::Result<()>;
        fn statfs(ctx: Context, inode: Inode) -> io::Result<libc::statvfs64>;
        fn getxattr(ctx: Context, inode: Inode, name: &CStr, size: u32) -> io::Result<GetxattrReply>;
        fn listxattr(ctx: Context, inode: Inode, size: u32) -> io::Result<ListxattrReply>;
        fn readdir(
            ctx: Context, inode: Inode, handle: Handle, size: u32, offset: u64
        ) -> io::Result<Self::DirIter>;
        fn fsyncdir(ctx: Context, inode: Inode, datasync: bool, handle: Handle) -> io::Result<()>;
        fn releasedir(ctx: Context, inode: Inode, flags: u32, handle: Handle) -> io::Result<()>;
        fn lseek(
            ctx: Context, inode: Inode, handle: Handle, offset: u64, whence: u32
        ) -> io::Result<u64>;
        fn syncfs(ctx: Context, inode: Inode) -> io::Result<()>;

        [inode] fn setattr(
            ctx: Context, inode: Inode, attr: SetattrIn, handle: Option<Handle>, valid: SetattrValid
        ) -> io::Result<(Attr, Duration)>;
        [inode] fn write<R: ZeroCopyReader>(
            ctx: Context, inode: Inode, handle: Handle, r: R, size: u32, offset: u64,
            lock_owner: Option<u64>, delayed_write: bool, kill_priv: bool, flags: u32
        ) -> io::Result<usize>;
        [inode] fn fallocate(
            ctx: Context, inode: Inode, handle: Handle, mode: u32, offset: u64, length: u64
        ) -> io::Result<()>;
        [inode] fn setxattr(
            ctx: Context, inode: Inode, name: &CStr, value: &[u8], flags: u32,
            extra_flags: SetxattrFlags
        ) -> io::Result<()>;
        [inode] fn removexattr(ctx: Context, inode: Inode, name: &CStr) -> io::Result<()>;
        [inode_out] fn copyfilerange(
            ctx: Context, inode_in: Inode, handle_in: Handle, offset_in: u64, inode_out: Inode,
            handle_out: Handle, offset_out: u64, len: u64, flags: u64
        ) -> io::Result<usize>;
    }

    fn destroy(&self) {
        self.known().forget_all();
        self.inner.destroy();
    }

    fn lookup(&self, ctx: Context, parent: Inode, name: &CStr) -> io::Result<Entry> {
        self.find(parent, name, || self.inner.lookup(ctx, parent, name))
    }

    fn forget(&self, ctx: Context, inode: Inode, count: u64) {
        let mut known = self.known();
        self.inner.forget(ctx, inode, count);
        known.forget(inode, count);
    }

    fn batch_forget(&self, ctx: Context, requests: Vec<(Inode, u64)>) {
        for (inode, count) in requests {
            self.forget(ctx, inode, count);
        }
    }

    fn access(&self, ctx: Context, inode: Inode, mask: u32) -> io::Result<()> {
        if mask & libc::W_OK.cast_unsigned() != 0 {
            self.check_writable(inode)?;
        }
        self.inner.access(ctx, inode, mask)
    }

    fn open(
        &self,
        ctx: Context,
        inode: Inode,
        kill_priv: bool,
        flags: u32,
    ) -> io::Result<(Option<Handle>, OpenOptions)> {
        self.check_open(inode, flags)?;
        self.inner.open(ctx, inode, kill_priv, flags)
    }

    fn opendir(
        &self,
        ctx: Context,
        inode: Inode,
        flags: u32,
    ) -> io::Result<(Option<Handle>, OpenOptions)> {
        self.check_open(inode, flags)?;
        self.inner.opendir(ctx, inode, flags)
    }

    fn create(
        &self,
        ctx: Context,
        parent: Inode,
        name: &CStr,
        mode: u32,
        kill_priv: bool,
        flags: u32,
        umask: u32,
        extensions: Extensions,
    ) -> io::Result<(Entry, Option<Handle>, OpenOptions)> {
        self.make(parent, name, || {
            self.inner
                .create(ctx, parent, name, mode, kill_priv, flags, umask, extensions)
        })
    }

    fn mknod(
        &self,
        ctx: Context,
        parent: Inode,
        name: &CStr,
        mode: u32,
        rdev: u32,
        umask: u32,
        extensions: Extensions,
    ) -> io::Result<Entry> {
        self.make(parent, name, || {
            self.inner
                .mknod(ctx, parent, name, mode, rdev, umask, extensions)
        })
    }

    fn mkdir(
        &self,
        ctx: Context,
        parent: Inode,
        name: &CStr,
        mode: u32,
        umask: u32,
        extensions: Extensions,
    ) -> io::Result<Entry> {
        self.make(parent, name, || {
            self.inner.mkdir(ctx, parent, name, mode, umask, extensions)
        })
    }

    fn symlink(
        &self,
        ctx: Context,
        target: &CStr,
        parent: Inode,
        name: &CStr,
        extensions: Extensions,
    ) -> io::Result<Entry> {
        self.make(parent, name, || {
            self.inner.symlink(ctx, target, parent, name, extensions)
        })
    }

    fn link(&self, ctx: Context, inode: Inode, parent: Inode, name: &CStr) -> io::Result<Entry> {
        self.check_writable(inode)?;
        self.make(parent, name, || self.inner.link(ctx, inode, parent, name))
    }

    fn unlink(&self, ctx: Context, parent: Inode, name: &CStr) -> io::Result<()> {
        check_name(name)?;
        self.check_writable(parent)?;
        self.inner.unlink(ctx, parent, name)
    }

    fn rmdir(&self, ctx: Context, parent: Inode, name: &CStr) -> io::Result<()> {
        check_name(name)?;
        self.check_writable(parent)?;
        self.inner.rmdir(ctx, parent, name)
    }

    fn rename(
        &self,
        ctx: Context,
        from: Inode,
        name: &CStr,
        to: Inode,
        new_name: &CStr,
        flags: u32,
    ) -> io::Result<()> {
        check_name(name)?;
        check_name(new_name)?;
        self.check_writable(from)?;
        self.check_writable(to)?;
        self.inner.rename(ctx, from, name, to, new_name, flags)
    }
}

impl SerializableFileSystem for Served {
    passed_on! {
        fn prepare_serialization(cancel: Arc<AtomicBool>);
        fn serialize(state_pipe: File) -> io::Result<()>;
        fn deserialize_and_apply(state_pipe: File) -> io::Result<()>;
    }
}
