//! Device rules, and what they decide.

use oci_spec::runtime::{LinuxDeviceCgroup, LinuxDeviceType};

use crate::error::{Error, Result};

/// Rules of one container. Engines write some ten, and one for each device that is passed in.
const RULES_MAX: usize = 1024;

const FIELD: &str = "linux.resources.devices";

/// What is done to a device: the bits that the kernel has for it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Access(u8);

impl Access {
    pub(super) const MAKE: Self = Self(1);
    pub(super) const READ: Self = Self(2);
    pub(super) const WRITE: Self = Self(4);
    pub(super) const ALL: Self = Self(7);

    pub(super) const fn bits(self) -> u8 {
        self.0
    }

    #[cfg(test)]
    pub(super) const fn from_bits(bits: u8) -> Self {
        Self(bits)
    }

    fn parse(text: &str) -> Option<Self> {
        let mut bits = 0;
        for letter in text.chars() {
            let one = match letter {
                'r' => Self::READ,
                'w' => Self::WRITE,
                'm' => Self::MAKE,
                _ => return None,
            };
            bits |= one.0;
        }
        (bits != 0).then_some(Self(bits))
    }
}

/// The kinds of device, with the kernel's numbers.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Kind {
    Block = 1,
    Character = 2,
}

/// One rule. What it does not say, it says of all.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Rule {
    pub(super) allow: bool,
    pub(super) kind: Option<Kind>,
    pub(super) major: Option<u32>,
    pub(super) minor: Option<u32>,
    pub(super) access: Access,
}

impl Rule {
    /// Whether it is about every device and everything that is done to it.
    pub(super) fn is_about_all(&self) -> bool {
        self.kind.is_none()
            && self.major.is_none()
            && self.minor.is_none()
            && self.access == Access::ALL
    }

    fn parse(device: &LinuxDeviceCgroup) -> Result<Self> {
        let kind = match device.typ() {
            None | Some(LinuxDeviceType::A) => None,
            Some(LinuxDeviceType::B) => Some(Kind::Block),
            Some(LinuxDeviceType::C | LinuxDeviceType::U) => Some(Kind::Character),
            Some(LinuxDeviceType::P) => return Err(invalid(device, "is about no device")),
        };
        let number = |number: Option<i64>| match number {
            None => Ok(None),
            Some(number) => u32::try_from(number)
                .map(Some)
                .map_err(|_| invalid(device, "has a number that no device has")),
        };
        let access = device.access().as_deref().and_then(Access::parse);
        Ok(Self {
            allow: device.allow(),
            kind,
            major: number(device.major())?,
            minor: number(device.minor())?,
            access: access.ok_or_else(|| invalid(device, "has no access of r, w and m"))?,
        })
    }
}

/// The rules of a container, the specification's and then those that every container has.
///
/// They decide as those of other runtimes: for each thing that is done to a device, the last rule
/// that is about it; when there is none, it is refused.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct DeviceRules(Vec<Rule>);

impl DeviceRules {
    pub(super) fn parse(devices: &[LinuxDeviceCgroup]) -> Result<Self> {
        if devices.len() > RULES_MAX {
            return Err(Error::Invalid {
                field: FIELD,
                value: devices.len().to_string(),
                reason: "are too many rules",
            });
        }
        let given = devices.iter().map(Rule::parse);
        let always = always_allowed().map(Ok);
        given.chain(always).collect::<Result<_>>().map(Self)
    }

    /// From the first to the last; a later one wins.
    pub(super) fn iter(&self) -> impl DoubleEndedIterator<Item = &Rule> {
        self.0.iter()
    }
}

/// What no rule takes away: making nodes, of whatever device, and the devices that the
/// specification says are in every container.
fn always_allowed() -> impl Iterator<Item = Rule> {
    /// Major and minor numbers; without the latter, all of them.
    const USABLE: [(u32, Option<u32>); 9] = [
        (1, Some(3)), // null
        (1, Some(5)), // zero
        (1, Some(7)), // full
        (1, Some(8)), // random
        (1, Some(9)), // urandom
        (5, Some(0)), // tty
        (5, Some(1)), // console
        (5, Some(2)), // ptmx
        (136, None),  // pts/*
    ];
    let made = [Kind::Character, Kind::Block].map(|kind| Rule {
        allow: true,
        kind: Some(kind),
        major: None,
        minor: None,
        access: Access::MAKE,
    });
    let usable = USABLE.map(|(major, minor)| Rule {
        allow: true,
        kind: Some(Kind::Character),
        major: Some(major),
        minor,
        access: Access::ALL,
    });
    made.into_iter().chain(usable)
}

fn invalid(device: &LinuxDeviceCgroup, reason: &'static str) -> Error {
    Error::Invalid {
        field: FIELD,
        value: format!("{device:?}"),
        reason,
    }
}

/// The same decision as the program's, said in another way.
#[cfg(test)]
impl DeviceRules {
    pub(super) fn allows(&self, kind: Kind, major: u32, minor: u32, access: Access) -> bool {
        let is = |said: Option<u32>, value: u32| said.is_none_or(|said| said == value);
        [Access::MAKE, Access::READ, Access::WRITE]
            .into_iter()
            .filter(|one| access.bits() & one.bits() != 0)
            .all(|one| {
                let last = self.iter().rev().find(|rule| {
                    rule.kind.is_none_or(|said| said == kind)
                        && is(rule.major, major)
                        && is(rule.minor, minor)
                        && rule.access.bits() & one.bits() != 0
                });
                last.is_some_and(|rule| rule.allow)
            })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn device(
        allow: bool,
        kind: Option<LinuxDeviceType>,
        (major, minor): (Option<i64>, Option<i64>),
        access: &str,
    ) -> LinuxDeviceCgroup {
        let mut device = LinuxDeviceCgroup::default();
        device
            .set_allow(allow)
            .set_typ(kind)
            .set_major(major)
            .set_minor(minor)
            .set_access(Some(access.to_owned()));
        device
    }

    fn deny_all() -> LinuxDeviceCgroup {
        device(false, None, (None, None), "rwm")
    }

    const FUSE: (u32, u32) = (10, 229);

    fn allows(rules: &DeviceRules, (major, minor): (u32, u32), access: &str) -> bool {
        let access = Access::parse(access).unwrap();
        rules.allows(Kind::Character, major, minor, access)
    }

    #[test]
    fn a_later_rule_wins_for_what_it_is_about() {
        let fuse = (Some(10), Some(229));
        let rules = DeviceRules::parse(&[
            deny_all(),
            device(true, Some(LinuxDeviceType::C), fuse, "rwm"),
            device(false, Some(LinuxDeviceType::C), fuse, "w"),
        ])
        .unwrap();
        assert!(allows(&rules, FUSE, "r"));
        assert!(!allows(&rules, FUSE, "w"));
        assert!(!allows(&rules, FUSE, "rw"));
        assert!(!allows(&rules, (10, 200), "r"));
        let again = DeviceRules::parse(&[
            device(true, Some(LinuxDeviceType::C), fuse, "rwm"),
            deny_all(),
        ]);
        assert!(!allows(&again.unwrap(), FUSE, "r"));
    }

    #[test]
    fn two_rules_allow_together_what_neither_allows_alone() {
        let kmsg = (Some(1), Some(11));
        let rules = DeviceRules::parse(&[
            device(true, Some(LinuxDeviceType::C), kmsg, "r"),
            device(true, Some(LinuxDeviceType::C), kmsg, "w"),
        ]);
        assert!(allows(&rules.unwrap(), (1, 11), "rw"));
    }

    #[test]
    fn no_rule_takes_away_what_every_container_has() {
        let rules = DeviceRules::parse(&[deny_all()]).unwrap();
        for usable in [
            (1, 3),
            (1, 5),
            (1, 7),
            (1, 8),
            (1, 9),
            (5, 0),
            (5, 1),
            (5, 2),
            (136, 7),
        ] {
            assert!(allows(&rules, usable, "rwm"), "{usable:?}");
        }
        assert!(allows(&rules, (1, 11), "m"));
        assert!(!allows(&rules, (1, 11), "r"));
        assert!(rules.allows(Kind::Block, 8, 0, Access::MAKE));
        assert!(!rules.allows(Kind::Block, 1, 3, Access::READ));
    }

    #[test]
    fn a_wildcard_allows_a_whole_driver() {
        let sound = (Some(116), None);
        let rules = DeviceRules::parse(&[
            deny_all(),
            device(true, Some(LinuxDeviceType::C), sound, "rw"),
            device(true, Some(LinuxDeviceType::B), (None, Some(1)), "r"),
        ])
        .unwrap();
        assert!(allows(&rules, (116, 0), "rw") && allows(&rules, (116, 33), "rw"));
        assert!(!allows(&rules, (117, 0), "rw"));
        assert!(rules.allows(Kind::Block, 8, 1, Access::READ));
        assert!(!rules.allows(Kind::Block, 8, 2, Access::READ));
    }

    #[test]
    fn none_at_all_restricts_nothing() {
        assert_eq!(DeviceRules::of(None).unwrap(), None);
        assert_eq!(DeviceRules::of(Some(&[])).unwrap(), None);
        assert!(DeviceRules::of(Some(&[deny_all()])).unwrap().is_some());
    }

    #[test]
    fn what_is_no_rule_is_refused_by_name() {
        let bad = [
            device(true, Some(LinuxDeviceType::P), (None, None), "r"),
            device(true, None, (Some(-2), None), "r"),
            device(true, None, (None, Some(1 << 40)), "r"),
            device(true, None, (None, None), ""),
            device(true, None, (None, None), "rx"),
        ];
        for device in bad {
            let error = DeviceRules::parse(&[deny_all(), device]).unwrap_err();
            assert!(error.to_string().contains(FIELD), "{error}");
        }
        let many = vec![deny_all(); RULES_MAX + 1];
        assert!(DeviceRules::parse(&many).is_err());
        assert!(DeviceRules::parse(&many[1..]).is_ok());
    }
}
