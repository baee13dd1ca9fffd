//! How long a guest may believe what it has read.

use vc_storage::{Access, CachePolicy, Rights};

use crate::harness::{ROOT_USER, one, serve};

pub(crate) fn content_is_kept_and_attributes_are_asked_for_again() {
    let directory = tempfile::tempdir().unwrap();
    std::fs::write(directory.path().join("file"), "x").unwrap();
    let day_s = 86_400;
    for (policy, valid_s) in [(CachePolicy::Checked, 1), (CachePolicy::Always, day_s)] {
        let rights = Rights::Invoker(ROOT_USER);
        let mut plan = one(rights, directory.path(), Access::ReadOnly);
        plan.cache = policy;
        let mut served = serve(plan);
        let mut client = served.client();
        let file = client.walk("shared/file").unwrap();
        assert_eq!(file.valid_s, [valid_s; 2], "{policy:?}");
        assert!(client.keeps(file.node).unwrap(), "{policy:?}");
    }
}
