//! A kernel's modules: which there are, and which of them a list needs, in load order.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Path, PathBuf};

use super::compression;
use super::list::{ModuleList, normal_name};
use super::modinfo::{ModInfo, without_signature};
use super::order::load_order;
use crate::manifest::Modules;
use crate::{Error, Result};

/// Directories below a kernel's module directory. Trees of distributions are seven deep.
const DEPTH_MAX: usize = 16;

/// The modules of one kernel, by name.
#[derive(Debug)]
pub struct ModuleIndex {
    release: String,
    files: BTreeMap<String, PathBuf>,
    /// Names and aliases of what is part of the kernel itself.
    builtin: BTreeSet<String>,
}

/// One module, as it goes into the initrd.
#[derive(Debug)]
pub struct Module {
    name: String,
    content: Vec<u8>,
    info: ModInfo,
}

impl Module {
    /// Its name as the kernel has it.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// The file, unpacked and without a signature.
    pub fn content(&self) -> &[u8] {
        &self.content
    }

    /// Its other names.
    pub fn aliases(&self) -> &[String] {
        &self.info.aliases
    }
}

/// Every module of a kernel, and what each needs.
#[derive(Debug)]
pub(super) struct Orders<'a> {
    search: Search<'a>,
    before: BTreeMap<String, Vec<String>>,
}

impl Orders<'_> {
    /// All modules, by name. Orders can still be asked for.
    pub(super) fn take_modules(&mut self) -> impl Iterator<Item = Module> + use<> {
        std::mem::take(&mut self.search.files).into_values()
    }

    /// What is to be loaded for a module, itself as the last.
    ///
    /// # Errors
    /// [`Error::DependencyCycle`].
    pub(super) fn of(&self, name: &str) -> Result<Vec<String>> {
        load_order(&[name.to_owned()], |module| {
            Ok(self.before.get(module).cloned().unwrap_or_default())
        })
    }
}

/// A module list with everything it needs.
#[derive(Debug)]
pub struct Resolved {
    names: Modules,
    files: BTreeMap<String, Module>,
}

impl Resolved {
    /// The names, in load order.
    pub fn names(&self) -> &Modules {
        &self.names
    }

    /// Each module once, by name.
    pub fn files(&self) -> impl Iterator<Item = &Module> {
        self.files.values()
    }
}

impl ModuleIndex {
    /// Looks through a module directory, whose name is the kernel's release.
    ///
    /// # Errors
    /// [`Error::InvalidInput`] when it holds no module, [`Error::Io`] when it cannot be read.
    pub fn open(dir: &Path) -> Result<Self> {
        let invalid = |reason: &str| Error::input(dir, "a kernel's modules", reason);
        let release = dir
            .canonicalize()
            .map_err(Error::io("open", dir))?
            .file_name()
            .and_then(|name| name.to_str())
            .ok_or_else(|| invalid("its name is no kernel release"))?
            .to_owned();
        let mut files = BTreeMap::new();
        find_modules(dir, DEPTH_MAX, &mut files)?;
        if files.is_empty() {
            return Err(invalid("it has no module"));
        }
        Ok(Self {
            release,
            files,
            builtin: builtin_names(dir),
        })
    }

    /// The kernel that the modules are for.
    pub fn release(&self) -> &str {
        &self.release
    }

    /// Finds what a list needs.
    ///
    /// # Errors
    /// [`Error::NoModule`] for a module that is neither there nor built in and not optional,
    /// [`Error::NotBeside`] for one that is to be loaded beside what it needs,
    /// [`Error::DependencyCycle`], [`Error::InvalidInput`] for a damaged module, [`Error::Io`].
    pub fn resolve(&self, list: &ModuleList) -> Result<Resolved> {
        let mut search = Search {
            index: self,
            files: BTreeMap::new(),
            aliases: None,
        };
        let mut builtin = BTreeSet::new();
        let mut wanted = |names: &[String]| -> Result<Vec<String>> {
            let mut present = Vec::new();
            for name in names {
                if self.files.contains_key(name) {
                    present.push(name.clone());
                } else if self.builtin.contains(name) {
                    builtin.insert(name.clone());
                } else if !list.optional.contains(name) {
                    return Err(self.no_module(name, None));
                }
            }
            Ok(present)
        };
        let boot = load_order(&wanted(&list.boot)?, |m| search.before(m))?;
        let beside = load_order(&wanted(&list.beside)?, |m| search.before(m))?;
        if let Some(both) = beside.iter().find(|name| boot.contains(name)) {
            return Err(Error::NotBeside {
                module: both.clone(),
            });
        }
        let background = wanted(&list.background)?;
        let on_demand = wanted(&list.on_demand)?;

        let background = load_order(&background, |m| search.before(m))?;
        let background = without(background, &[&boot, &beside]);
        let mut demanded = BTreeMap::new();
        for name in on_demand {
            let order = load_order(std::slice::from_ref(&name), |m| search.before(m))?;
            demanded.insert(name, without(order, &[&boot, &beside]));
        }
        let builtin = builtin.into_iter().collect();
        let names = Modules {
            boot,
            beside,
            background,
            on_demand: demanded,
            builtin,
        };
        Ok(Resolved {
            names,
            files: search.files,
        })
    }

    /// Reads every module, and what each needs.
    ///
    /// # Errors
    /// [`Error::NoModule`] for one that is needed and missing, [`Error::InvalidInput`] for a
    /// damaged one, [`Error::Io`].
    pub(super) fn orders(&self) -> Result<Orders<'_>> {
        let mut orders = Orders {
            search: Search {
                index: self,
                files: BTreeMap::new(),
                aliases: None,
            },
            before: BTreeMap::new(),
        };
        for name in self.files.keys() {
            let before = orders.search.before(name)?;
            orders.before.insert(name.clone(), before);
        }
        Ok(orders)
    }

    fn no_module(&self, name: &str, needed_by: Option<&str>) -> Error {
        Error::NoModule {
            module: name.to_owned(),
            needed_by: needed_by.map(str::to_owned),
            release: self.release.clone(),
        }
    }

    fn load(&self, name: &str) -> Result<Module> {
        let path = &self.files[name];
        let packed = fs::read(path).map_err(Error::io("read", path))?;
        let invalid = |reason: String| Error::input(path, "a kernel module", reason);
        let content = match compression::unpack(&packed).map_err(|e| invalid(e.to_string()))? {
            Some(unpacked) => unpacked,
            None => packed,
        };
        let info = ModInfo::of_module(&content).map_err(invalid)?;
        let content = without_signature(&content).to_vec();
        Ok(Module {
            name: name.to_owned(),
            content,
            info,
        })
    }
}

/// One resolving: the modules read so far, and the aliases once one was asked for.
#[derive(Debug)]
struct Search<'a> {
    index: &'a ModuleIndex,
    files: BTreeMap<String, Module>,
    aliases: Option<BTreeMap<String, String>>,
}

impl Search<'_> {
    /// What must be loaded before a module, in the module's order.
    fn before(&mut self, name: &str) -> Result<Vec<String>> {
        let module = self.index.load(name)?;
        let ModInfo {
            depends,
            soft_before,
            ..
        } = module.info.clone();
        self.files.insert(name.to_owned(), module);
        let mut before = Vec::new();
        for soft in soft_before {
            before.extend(self.by_name_or_alias(&soft)?);
        }
        for needed in depends {
            if self.index.files.contains_key(&needed) {
                before.push(needed);
            } else if !self.index.builtin.contains(&needed) {
                return Err(self.index.no_module(&needed, Some(name)));
            }
        }
        Ok(before)
    }

    /// The module that a soft dependency means, or nothing: it may be built in, or not exist.
    fn by_name_or_alias(&mut self, name: &str) -> Result<Option<String>> {
        if self.index.files.contains_key(name) {
            return Ok(Some(name.to_owned()));
        }
        if self.index.builtin.contains(name) {
            return Ok(None);
        }
        if self.aliases.is_none() {
            self.aliases = Some(self.read_aliases()?);
        }
        Ok(self
            .aliases
            .as_ref()
            .and_then(|aliases| aliases.get(name))
            .cloned())
    }

    /// Reads every module once: packages do not bring the index of aliases, which is made when a
    /// kernel is installed. Patterns are left out, as a dependency names one thing.
    fn read_aliases(&self) -> Result<BTreeMap<String, String>> {
        let mut aliases = BTreeMap::new();
        for name in self.index.files.keys() {
            for alias in self.index.load(name)?.info.aliases {
                if !alias.contains('*') {
                    aliases.entry(alias).or_insert_with(|| name.clone());
                }
            }
        }
        Ok(aliases)
    }
}

fn without(mut names: Vec<String>, lists: &[&[String]]) -> Vec<String> {
    names.retain(|name| !lists.iter().any(|list| list.contains(name)));
    names
}

fn find_modules(dir: &Path, depth: usize, found: &mut BTreeMap<String, PathBuf>) -> Result<()> {
    for entry in fs::read_dir(dir).map_err(Error::io("read", dir))? {
        let entry = entry.map_err(Error::io("read", dir))?;
        let path = entry.path();
        // Links lead out of the tree, to the kernel's source.
        let kind = entry.file_type().map_err(Error::io("read", &path))?;
        if kind.is_dir() && depth > 0 {
            find_modules(&path, depth - 1, found)?;
        } else if kind.is_file()
            && let Some(name) = module_name(&path)
        {
            found.insert(name, path);
        }
    }
    Ok(())
}

/// Names and aliases of the modules that are built in. A kernel without these files has nothing
/// built in that a list would name.
fn builtin_names(dir: &Path) -> BTreeSet<String> {
    let paths = fs::read_to_string(dir.join("modules.builtin")).unwrap_or_default();
    let names = paths
        .lines()
        .filter_map(|line| module_name(Path::new(line)));
    let described = fs::read(dir.join("modules.builtin.modinfo")).unwrap_or_default();
    let aliases = described.split(|b| *b == 0).filter_map(|entry| {
        let (key, alias) = std::str::from_utf8(entry).ok()?.split_once('=')?;
        key.ends_with(".alias").then(|| normal_name(alias))
    });
    names.chain(aliases).collect()
}

/// The name of a module by its file, packed or not.
fn module_name(path: &Path) -> Option<String> {
    let file = path.file_name()?.to_str()?;
    let stem = [".ko", ".ko.xz", ".ko.gz", ".ko.zst"]
        .iter()
        .find_map(|end| file.strip_suffix(end))?;
    Some(normal_name(stem))
}
