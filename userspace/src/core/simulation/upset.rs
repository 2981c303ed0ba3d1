//! What goes wrong in the simulated world, and what its operators order meanwhile.

use super::*;
use crate::core::change::Duty;

impl World {
    /// Something goes wrong, or right again.
    pub(super) fn upset(&mut self) {
        let count = self.hosts.len() as u64;
        let (a, b) = (1 + self.random.below(count), 1 + self.random.below(count));
        let now = self.now;
        match self.random.below(18) {
            0 => drop(self.cut.insert((a, b))),
            1 => self.cut.extend([(a, b), (b, a)]),
            2 => self.cut.extend((1..=count).filter(|&x| x != a).flat_map(|x| [(a, x), (x, a)])),
            3 | 4 => self.cut.clear(),
            5 => {
                let host = self.hosts.get_mut(&a).expect("a host");
                host.asleep_until = now + self.random.below(1200);
            }
            6 => self.hosts.get_mut(&a).expect("a host").lags_until = now + self.random.below(2000),
            7 | 8 => {
                self.hosts.get_mut(&a).expect("a host").daemon = None;
                self.tell(|| format!("n{a} dies"));
            }
            9 => {
                let host = self.hosts.get_mut(&a).expect("a host");
                (host.daemon, host.kernel, host.born) = (None, Kernel::default(), now);
                self.tell(|| format!("n{a} reboots"));
            }
            10 => {
                let removed = self.random.chance(60);
                let host = self.hosts.get_mut(&a).expect("a host");
                host.daemon = None;
                host.kernel.forget(removed);
                self.start(a);
                self.tell(|| format!("n{a} starts without the datapath's memory"));
            }
            11 => {
                let device = DEVICES[self.random.below(2) as usize];
                let health = [DeviceHealth::Healthy, DeviceHealth::Recovering, DeviceHealth::Failed];
                let health = health[self.random.below(3) as usize];
                self.hosts.get_mut(&a).expect("a host").devices.insert(device.into(), health);
                self.tell(|| format!("n{a} {device} {health:?}"));
            }
            12 => self.readdress(a),
            13 | 14 => self.order(a),
            15 => {
                let policy = if self.random.chance(50) { TwoNodes::Freeze } else { TwoNodes::Off };
                self.propose(a, 0, Change::SetDefault { setting: DefaultSetting::TwoNodes(policy) });
            }
            _ => {
                self.leaders = [a, b].into_iter().take(1 + self.random.below(2) as usize).collect();
            }
        }
        self.cut.retain(|(x, y)| x != y);
        let dead: Vec<NodeId> = self.hosts.values().filter(|h| h.daemon.is_none()).map(|h| h.id).collect();
        for id in dead {
            if self.random.chance(60) {
                self.start(id);
            }
        }
        let (cut, leaders) = (self.cut.clone(), self.leaders.clone());
        self.tell(|| format!("leaders {leaders:?} cut {cut:?}"));
    }

    /// Other addresses for one resource.
    fn readdress(&mut self, proposer: NodeId) {
        let tags = tags();
        let which = self.random.below(tags.len() as u64) as usize;
        let all: Vec<ipnet::IpNet> = (0..4).map(|i| address(which, i)).collect();
        let (some, from) = (1 + self.random.below(3) as usize, self.random.below(2) as usize);
        let addresses = all.into_iter().skip(from).take(some).collect();
        self.propose(proposer, 0, Change::SetAddresses { tag: tags[which].clone(), addresses });
    }

    /// Somebody orders something, sensible or not.
    fn order(&mut self, node: NodeId) {
        let tags = tags();
        let tag = tags[self.random.below(tags.len() as u64) as usize].clone();
        let change = match self.random.below(8) {
            0 => Change::InService { tag, on: Some(node), until: None },
            1 => Change::InService { tag, on: None, until: None },
            2 => Change::OutOfService { tag },
            3 => Change::SetNode { node, duty: Duty::Standby },
            4 => Change::SetNode { node, duty: Duty::Online },
            5 => Change::Cleanup { tag, node: Some(node) },
            6 => {
                // Refused where it would make a circle, or bring together what is apart.
                let child = tags[self.random.below(tags.len() as u64) as usize].clone();
                Change::Depend { parent: tag, child }
            }
            _ => Change::Undepend { parent: self::tag("web"), child: self::tag("ip-1") },
        };
        self.propose(node, 0, change);
    }
}
