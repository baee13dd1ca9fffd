//! The QMP commands of a VM's size: pure data.

use qapi::qmp::{self, HotpluggableCPU};

use crate::qemu::args::behind;

/// A processor at a place that QEMU has for it. It has the names of its place, so that the same one
/// cannot come twice.
pub(super) fn cpu(place: &HotpluggableCPU) -> qmp::device_add {
    let props = &place.props;
    let ids = [
        ("socket-id", props.socket_id),
        ("die-id", props.die_id),
        ("core-id", props.core_id),
        ("thread-id", props.thread_id),
    ];
    let numbers = ids.iter().filter_map(|(_, id)| id.map(|id| id.to_string()));
    let name = format!("cpu-{}", numbers.collect::<Vec<_>>().join("-"));
    let ids = ids.iter().filter_map(|(key, id)| Some((*key, (*id)?)));
    let ids = ids.map(|(key, id)| (key.to_owned(), id.into()));
    qmp::device_add::new(place.type_.clone(), name, None, ids)
}

/// Offers the guest so many bytes of the memory behind a port; it gives back what it has more.
pub(super) fn request(port: u8, bytes: u64) -> qmp::qom_set {
    qmp::qom_set {
        path: format!("/machine/peripheral/{}", behind(port)),
        property: "requested-size".into(),
        value: bytes.into(),
    }
}
