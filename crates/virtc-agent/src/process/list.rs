//! The processes of a container, as the guest's kernel shows them.

use std::fs;

use agent_protocol::virtc::ProcessEntry;

/// Microseconds of one tick in /proc: USER_HZ is 100 on every architecture that we know.
const TICK_US: u64 = 10_000;

/// Bytes of a page, the unit of /proc's sizes.
fn page_bytes() -> u64 {
    rustix::param::page_size() as u64
}

/// Bytes of all arguments of one process that are sent.
const ARGUMENT_BYTES_MAX: usize = 4096;

/// Describes `pids`. Those that ended meanwhile are left out.
pub(crate) fn list_processes(pids: &[i32]) -> Vec<ProcessEntry> {
    pids.iter().filter_map(|pid| describe(*pid)).collect()
}

fn describe(pid: i32) -> Option<ProcessEntry> {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    let status = fs::read_to_string(format!("/proc/{pid}/status")).ok()?;
    let command_line = fs::read(format!("/proc/{pid}/cmdline")).ok()?;
    let mut entry = parse_stat(&stat)?;
    entry.pid = u32::try_from(pid).ok()?;
    entry.uid = effective_id(&status, "Uid:")?;
    entry.gid = effective_id(&status, "Gid:")?;
    entry.args = parse_arguments(&command_line);
    Some(entry)
}

/// `PID (COMMAND) STATE PPID …`, where the command may hold anything, brackets included.
fn parse_stat(stat: &str) -> Option<ProcessEntry> {
    let (head, rest) = stat.rsplit_once(") ")?;
    let command = head.split_once(" (")?.1;
    let fields: Vec<&str> = rest.split(' ').collect();
    // Numbered as in proc(5), where the state is the third.
    let number = |field: usize| -> Option<u64> { fields.get(field - 3)?.trim().parse().ok() };
    Some(ProcessEntry {
        command: command.to_owned(),
        state: (*fields.first()?).to_owned(),
        ppid: u32::try_from(number(4)?).ok()?,
        cpu_user_us: number(14)?.saturating_mul(TICK_US),
        cpu_system_us: number(15)?.saturating_mul(TICK_US),
        start_uptime_us: number(22)?.saturating_mul(TICK_US),
        rss_bytes: number(24)?.saturating_mul(page_bytes()),
        ..ProcessEntry::default()
    })
}

/// The second number of a line of ids is the effective one.
fn effective_id(status: &str, key: &str) -> Option<u32> {
    let line = status.lines().find_map(|line| line.strip_prefix(key))?;
    line.split_whitespace().nth(1)?.parse().ok()
}

fn parse_arguments(command_line: &[u8]) -> Vec<String> {
    let cut = &command_line[..command_line.len().min(ARGUMENT_BYTES_MAX)];
    let cut = cut.strip_suffix(b"\0").unwrap_or(cut);
    if cut.is_empty() {
        return Vec::new();
    }
    cut.split(|byte| *byte == 0)
        .map(|word| String::from_utf8_lossy(word).into_owned())
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_command_with_brackets_confuses_nobody() {
        let stat = "7 (a) b (c)) S 3 7 7 0 -1 4194304 1 0 0 0 5 6 0 0 20 0 1 0 900 1000 250 \
                    18446744073709551615 1\n";
        let entry = parse_stat(stat).unwrap();
        assert_eq!(entry.command, "a) b (c)");
        assert_eq!((entry.state.as_str(), entry.ppid), ("S", 3));
        assert_eq!((entry.cpu_user_us, entry.cpu_system_us), (50_000, 60_000));
        assert_eq!(entry.start_uptime_us, 9_000_000);
        assert_eq!(entry.rss_bytes, 250 * page_bytes());
    }

    #[test]
    fn arguments_are_cut_and_empty_ones_kept() {
        assert_eq!(parse_arguments(b"a\0\0b c\0"), ["a", "", "b c"]);
        assert!(parse_arguments(b"").is_empty());
        assert_eq!(
            parse_arguments(&[b'x'; 10_000])[0].len(),
            ARGUMENT_BYTES_MAX
        );
    }

    #[test]
    fn this_process_can_be_described() {
        let pid = std::process::id();
        let entries = list_processes(&[i32::try_from(pid).unwrap(), i32::MAX]);
        assert_eq!(entries.len(), 1);
        assert_eq!(entries[0].pid, pid);
    }
}
