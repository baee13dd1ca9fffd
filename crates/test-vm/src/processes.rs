use std::fs;

/// A process below this one.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Process {
    /// Its pid.
    pub pid: i32,
    /// The name of its program, or of its thread where it set one.
    pub name: String,
    /// Its arguments, with blanks between.
    pub command: String,
    /// Its state's letter.
    pub state: char,
}

/// All processes below `pid`, zombies too.
pub fn descendants(pid: i32) -> Vec<Process> {
    let mut all = Vec::new();
    for entry in fs::read_dir("/proc").unwrap().flatten() {
        let Some(pid) = entry
            .file_name()
            .to_str()
            .and_then(|n| n.parse::<i32>().ok())
        else {
            continue;
        };
        if let Some(found) = read(pid) {
            all.push(found);
        }
    }
    let mut below = Vec::new();
    let mut parents = vec![pid];
    while let Some(parent) = parents.pop() {
        for (process, _) in all.iter().filter(|(_, ppid)| *ppid == parent) {
            parents.push(process.pid);
            below.push(process.clone());
        }
    }
    below
}

fn read(pid: i32) -> Option<(Process, i32)> {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    let (name, rest) = stat.split_once('(')?.1.rsplit_once(')')?;
    let mut fields = rest.split_ascii_whitespace();
    let state = fields.next()?.chars().next()?;
    let ppid = fields.next()?.parse().ok()?;
    let command = fs::read(format!("/proc/{pid}/cmdline")).ok()?;
    let command = String::from_utf8_lossy(&command)
        .replace('\0', " ")
        .trim()
        .to_owned();
    Some((
        Process {
            pid,
            name: name.to_owned(),
            command,
            state,
        },
        ppid,
    ))
}
