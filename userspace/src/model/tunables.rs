//! The tunables of the resources (rows IP-14 and EC2-4), by value.

use std::time::Duration;

/// What an operator may tune, as it is now. It is read anew before each action, so it is a plain value
/// that the action keeps for as long as it lasts. Names and text form: docs/tunables.md.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Tunables {
    /// `NOBCASTPING`: connectivity is never tested by a broadcast ping. Without a ping list there is
    /// then no connectivity test at all.
    pub no_broadcast_ping: bool,
    /// `NOIPUNIQUE`: nothing checks that nobody else on the network uses the address.
    pub no_unique_check: bool,
    /// `IP_NOLINKCHECK`: the link is taken to be up.
    pub no_link_check: bool,
    /// `IP_WAIT_LINKDOWN`, seconds: how long a device that was stopped stays so before it is started
    /// again.
    pub link_down_wait: Duration,
    /// `IP_MAX_LINKCHK`: looks at a link before it counts as down.
    pub link_checks: u32,
    /// `IP_PINGTIME`, seconds: how long an answer is waited for in each try.
    pub ping_wait: Duration,
    /// `IP_PINGTRIES`: tries before nobody has answered.
    pub ping_tries: u32,
    /// `IP_QUICKCHECK_TIMEOUT`, seconds: a check that takes longer is a failure of the resource.
    pub quickcheck_timeout: Duration,
    /// `IP_QUICKCHECK_INTERVAL`, seconds from the end of one check to the begin of the next.
    pub quickcheck_interval: Duration,
    /// `IP_RESTORE_TIMEOUT`, seconds: bound of a whole bring-up.
    pub restore_timeout: Duration,
    /// `IP_REMOVE_TIMEOUT`, seconds: bound of a whole removal.
    pub remove_timeout: Duration,
    /// `IP_RECOVER_TIMEOUT`, seconds: bound of a local recovery (removal and bring-up together).
    pub recover_timeout: Duration,
    /// `IP_ANNOUNCE_COUNT`: gratuitous ARPs of an address in one burst. An IPv6 address has one
    /// advertisement in each, and up to two more a second apart after the first.
    pub announce_count: u32,
    /// `IP_ANNOUNCE_REPEAT`: bursts that follow the first one.
    pub announce_repeat: u32,
    /// `IP_ANNOUNCE_REPEAT_DELAY`, seconds from one burst to the next.
    pub announce_repeat_delay: Duration,
    /// `IP_ANNOUNCE_REFRESH`, seconds: how often an address in service is announced again; 0 for never.
    pub announce_refresh: Duration,
    /// `IP_ANNOUNCE_PACE`: announcements in a second on an interface, of all its addresses.
    pub announce_pace: u32,
    pub ec2: Ec2Tunables,
}

/// Those of the resources of EC2 (row EC2-4).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Ec2Tunables {
    /// `EC2_QUICKCHECK_TIMEOUT`, seconds: a check that takes longer knows nothing, and the resource stays in service.
    pub quickcheck_timeout: Duration,
    /// `EC2_QUICKCHECK_INTERVAL`, seconds from the end of one check to the begin of the next; at first they are closer.
    pub quickcheck_interval: Duration,
    /// `EC2_RESTORE_TIMEOUT`, seconds: bound of a whole bring-up.
    pub restore_timeout: Duration,
    /// `EC2_REMOVE_TIMEOUT`, seconds: bound of a whole removal.
    pub remove_timeout: Duration,
    /// `EC2_RECOVER_TIMEOUT`, seconds: bound of a local recovery.
    pub recover_timeout: Duration,
    /// `EC2_MAX_RETRY`: attempts of a call after the first one, and writes that are repeated because they had no
    /// effect.
    pub max_retry: u32,
    /// `EC2_CALL_TIMEOUT`, seconds: an attempt of a call that is not answered for so long is given up.
    pub call_timeout: Duration,
}

impl Default for Ec2Tunables {
    fn default() -> Self {
        let s = Duration::from_secs;
        Self {
            quickcheck_timeout: s(100),
            quickcheck_interval: s(30),
            restore_timeout: s(300),
            remove_timeout: s(300),
            recover_timeout: s(300),
            max_retry: 3,
            call_timeout: s(5),
        }
    }
}

impl Default for Tunables {
    fn default() -> Self {
        let s = Duration::from_secs;
        Self {
            no_broadcast_ping: false,
            no_unique_check: false,
            no_link_check: false,
            link_down_wait: s(5),
            link_checks: 5,
            ping_wait: s(1),
            ping_tries: 3,
            quickcheck_timeout: s(12),
            quickcheck_interval: s(10),
            restore_timeout: s(60),
            remove_timeout: s(60),
            recover_timeout: s(120),
            announce_count: 4,
            announce_repeat: 1,
            announce_repeat_delay: s(5),
            announce_refresh: Duration::ZERO,
            announce_pace: 100_000,
            ec2: Ec2Tunables::default(),
        }
    }
}

impl Tunables {
    /// (name, value) in the text form of the defaults file, in the order of docs/tunables.md.
    pub fn pairs(&self) -> Vec<(String, String)> {
        let flag = |b: bool| u8::from(b).to_string();
        let seconds = Self::seconds;
        [
            ("NOBCASTPING", flag(self.no_broadcast_ping)),
            ("NOIPUNIQUE", flag(self.no_unique_check)),
            ("IP_NOLINKCHECK", flag(self.no_link_check)),
            ("IP_WAIT_LINKDOWN", seconds(self.link_down_wait)),
            ("IP_MAX_LINKCHK", self.link_checks.to_string()),
            ("IP_PINGTIME", seconds(self.ping_wait)),
            ("IP_PINGTRIES", self.ping_tries.to_string()),
            ("IP_QUICKCHECK_TIMEOUT", seconds(self.quickcheck_timeout)),
            ("IP_QUICKCHECK_INTERVAL", seconds(self.quickcheck_interval)),
            ("IP_RESTORE_TIMEOUT", seconds(self.restore_timeout)),
            ("IP_REMOVE_TIMEOUT", seconds(self.remove_timeout)),
            ("IP_RECOVER_TIMEOUT", seconds(self.recover_timeout)),
            ("IP_ANNOUNCE_COUNT", self.announce_count.to_string()),
            ("IP_ANNOUNCE_REPEAT", self.announce_repeat.to_string()),
            ("IP_ANNOUNCE_REPEAT_DELAY", seconds(self.announce_repeat_delay)),
            ("IP_ANNOUNCE_REFRESH", seconds(self.announce_refresh)),
            ("IP_ANNOUNCE_PACE", self.announce_pace.to_string()),
            ("EC2_QUICKCHECK_TIMEOUT", seconds(self.ec2.quickcheck_timeout)),
            ("EC2_QUICKCHECK_INTERVAL", seconds(self.ec2.quickcheck_interval)),
            ("EC2_RESTORE_TIMEOUT", seconds(self.ec2.restore_timeout)),
            ("EC2_REMOVE_TIMEOUT", seconds(self.ec2.remove_timeout)),
            ("EC2_RECOVER_TIMEOUT", seconds(self.ec2.recover_timeout)),
            ("EC2_MAX_RETRY", self.ec2.max_retry.to_string()),
            ("EC2_CALL_TIMEOUT", seconds(self.ec2.call_timeout)),
        ]
        .map(|(name, value)| (name.to_owned(), value))
        .into()
    }

    /// Decimal seconds, exactly: `5`, `0.25`.
    pub fn seconds(d: Duration) -> String {
        let text = format!("{}.{:09}", d.as_secs(), d.subsec_nanos());
        text.trim_end_matches('0').trim_end_matches('.').to_owned()
    }
}
