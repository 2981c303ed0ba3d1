//! Exit codes: a contract with scripts.

use crate::api::ErrorKind;

pub const DONE: u8 = 0;
pub const FAILED: u8 = 1;
pub const USAGE: u8 = 2;
/// No daemon, or no permission to ask it.
pub const NO_DAEMON: u8 = 3;
pub const REFUSED: u8 = 4;
pub const NO_QUORUM: u8 = 5;

pub fn code(kind: ErrorKind) -> u8 {
    match kind {
        ErrorKind::Failed => FAILED,
        ErrorKind::Usage => USAGE,
        ErrorKind::NoPermission => NO_DAEMON,
        ErrorKind::Refused => REFUSED,
        ErrorKind::NoQuorum => NO_QUORUM,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn codes_are_a_contract() {
        let kinds = [
            ErrorKind::Failed,
            ErrorKind::Usage,
            ErrorKind::NoPermission,
            ErrorKind::Refused,
            ErrorKind::NoQuorum,
        ];
        assert_eq!(kinds.map(code), [1, 2, 3, 4, 5]);
    }
}
