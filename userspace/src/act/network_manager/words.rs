//! NetworkManager's numbers in words (its D-Bus types NMDeviceState, NMDeviceStateReason and
//! NMActiveConnectionStateReason).

/// NMDeviceState.
pub(super) fn device_state(state: u32) -> &'static str {
    match state {
        10 => "unmanaged",
        20 => "unavailable",
        30 => "disconnected",
        40 => "preparing",
        50 => "configuring the device",
        60 => "waiting for secrets",
        70 => "getting its IP configuration",
        80 => "checking its IP configuration",
        90 => "waiting for other connections",
        100 => "activated",
        110 => "deactivating",
        120 => "failed",
        _ => "in an unknown state",
    }
}

/// NMDeviceStateReason: those that a device with a cable can have.
pub(super) fn device_reason(reason: u32) -> Option<&'static str> {
    Some(match reason {
        3 => "the device is not managed any more",
        4 => "the device could not be made ready",
        5 => "no IP configuration could be had (no address, time-out)",
        6 => "the IP configuration is not valid any more",
        7 => "secrets are required and were not given",
        8..=11 => "the 802.1X authentication failed",
        15 => "the DHCP client did not start",
        16 | 17 => "the DHCP client failed",
        20..=22 => "no link-local address could be had",
        35 => "the device's firmware is missing",
        36 => "the device was removed",
        37 => "NetworkManager sleeps, or its networking is switched off",
        38 => "the profile was deleted",
        39 => "somebody disconnected the device",
        40 => "the device lost its carrier",
        50 | 54 => "another connection that it needs failed",
        60 => "another connection was started on the device",
        61 | 62 => "the device's parent changed",
        64 => "its IP address is in use by somebody else",
        65 => "the IP method is not supported",
        66 => "SR-IOV could not be configured",
        _ => return None,
    })
}

/// NMActiveConnectionStateReason.
pub(super) fn active_reason(reason: u32) -> Option<&'static str> {
    Some(match reason {
        2 => "somebody deactivated it",
        3 => "the device was disconnected",
        4 => "a service that it needs stopped",
        5 => "the IP configuration is not valid",
        6 => "the connection attempt timed out",
        7 | 8 => "a service that it needs did not start",
        9 => "secrets are required and were not given",
        10 => "the authentication failed",
        11 => "the profile was deleted",
        12 => "another connection that it needs failed",
        13 => "the device could not be made",
        14 => "the device was removed",
        _ => return None,
    })
}
