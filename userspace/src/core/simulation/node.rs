//! One host's daemon: what `cluster::heartbeat` and `daemon::{agent, leader}` do, without the waiting.

use super::*;
use crate::model::Node;

impl World {
    pub(super) fn packet(&mut self, from: NodeId, to: NodeId, packet: Packet) {
        let (now, voters) = (self.now, self.voters());
        let host = self.hosts.get_mut(&to).expect("a host");
        let clock = host.clock(now);
        if let Packet::Fence { life, below } = packet {
            if host.kernel.reflects {
                host.kernel.fence = host.kernel.fence.max(below);
                let fence = host.kernel.fence;
                self.send(to, from, &Packet::Fenced { life, fence });
            }
            return;
        }
        let Some(daemon) = &mut host.daemon else { return };
        match packet {
            // The kernel's, done above.
            Packet::Fence { .. } => {}
            Packet::Fenced { life, fence } => {
                if let Some(proof) = daemon.proofs.get_mut(&from)
                    && host.life == life
                    && fence >= proof.lease_epoch
                {
                    proof.fenced(clock);
                }
            }
            Packet::Ask { life, asked, epoch, lease_valid, silences } => {
                daemon.hearing.heard(from, clock);
                let said = daemon.said.entry(from).or_default();
                said.lease_valid = lease_valid;
                said.had_lease |= lease_valid;
                said.lost = if lease_valid { None } else { said.lost.or(Some(clock)) };
                let testimony = |silence| Testimony { silence, heard_at: clock };
                said.silences = silences.into_iter().map(|(n, s)| (n, testimony(s))).collect();
                host.longest = host.longest.max(LEASE);
                let refused = daemon.granter.ask(clock, from, epoch, (0, 0), LEASE).err();
                self.send(to, from, &Packet::Ack { life, asked, epoch, refused });
            }
            Packet::Ack { life, asked, epoch, refused } => {
                daemon.hearing.heard(from, clock);
                if refused.is_none() && life == host.life && asked <= clock {
                    daemon.holder.agreed(from, epoch, asked);
                    let state = &self.log[daemon.applied];
                    renew(&mut host.kernel, daemon, voters, state.nodes.get(&to));
                } else if refused == Some(Refused::OldEpoch) && epoch == host.kernel.lease.0 {
                    daemon.permission.give_up();
                }
            }
            Packet::Query { life, node, below } => {
                let remaining = daemon.granter.refuse_below(clock, node, below);
                self.send(to, from, &Packet::Answer { life, node, below, remaining });
            }
            Packet::Answer { life, node, below, remaining } => {
                if let Some(proof) = daemon.proofs.get_mut(&node)
                    && (host.life, proof.lease_epoch) == (life, below)
                {
                    proof.testimony(from, clock, remaining);
                }
            }
        }
    }

    /// The daemon's tasks, in any order, each perhaps not in this step.
    pub(super) fn live(&mut self, host: &mut Host, d: &mut Daemon) {
        self.learn(host, d);
        let state = self.log[d.applied].clone();
        let first = self.random.below(4);
        for task in 0..4 {
            if !self.calm && self.random.chance(30) {
                continue;
            }
            match (first + task) % 4 {
                0 if d.next_beat <= self.now => self.beat(host, d, &state),
                1 if d.agent.is_some() => self.work(host, d, &state),
                2 if self.leaders.contains(&host.id) => self.lead(host, d, &state),
                3 if d.agent.is_some() => self.keep_alone(host, d, &state),
                _ => {}
            }
        }
    }

    fn learn(&mut self, host: &mut Host, d: &mut Daemon) {
        let hears = |&&p: &&NodeId| !self.cut.contains(&(p, host.id)) && !self.cut.contains(&(host.id, p));
        // This host itself is out of the map at the moment.
        let near = 1 + self.hosts.keys().filter(hears).count();
        if near * 2 <= self.hosts.len() + 1
            || host.lags_until > self.now
            || (!self.calm && self.random.chance(50))
        {
            return;
        }
        let newest = self.log.len() - 1;
        d.applied += self.random.below((newest - d.applied) as u64 + 1) as usize;
        if self.calm {
            d.applied = newest;
        }
        let barrier = *d.barrier.get_or_insert(newest);
        if d.agent.is_none() && d.applied >= barrier {
            let state = self.log[d.applied].clone();
            d.granter.caught_up(state.nodes.values().map(|n| (n.id, n.lease_epoch)));
            let mut agent = Agent::new(host.id);
            for (tag, vip) in &host.kernel.vips {
                let (Some((active, lease_epoch, epoch)), Some(resource)) =
                    (vip.gate, state.resources.get_shared(tag))
                else {
                    continue;
                };
                let serving = (active && lease_epoch == host.kernel.lease.0).then_some(epoch);
                let addresses = vip.assigned.clone().into();
                let here = Here { resource, addresses, device: DEVICES[0].into() };
                agent.found(tag.clone(), here, serving, host.clock(self.now));
            }
            agent.begin(&state);
            d.agent = Some(agent);
        }
    }

    fn beat(&mut self, host: &mut Host, d: &mut Daemon, state: &ClusterState) {
        let me = host.id;
        let now = host.clock(self.now);
        d.next_beat = self.now + BEAT;
        for node in state.nodes.values() {
            d.granter.raise_floor(node.id, node.lease_epoch);
        }
        let epoch = host.kernel.lease.0;
        d.holder.adopt(epoch);
        host.longest = host.longest.max(LEASE);
        if d.granter.ask(now, me, epoch, (0, 0), LEASE).is_ok() {
            d.holder.agreed(me, epoch, now);
        }
        let others: Vec<NodeId> = state.nodes.keys().copied().filter(|&n| n != me).collect();
        let voters = state.nodes.keys().copied().collect();
        renew(&mut host.kernel, d, voters, state.nodes.get(&me));
        let silences = others.iter().map(|&n| (n, d.hearing.silence(n, now, GRACE))).collect();
        let lease_valid = host.kernel.lease.1 > now;
        let ask = Packet::Ask { life: host.life, asked: now, epoch, lease_valid, silences };
        for to in others {
            self.send(me, to, &ask);
        }
    }

    /// What `daemon::alone` does.
    fn keep_alone(&mut self, host: &Host, d: &mut Daemon, state: &ClusterState) {
        let change = match alone::step(state, host.id, d.permission.asked()) {
            Step::Nothing => return,
            Step::Stop => {
                d.permission.give_up();
                return;
            }
            Step::Ask if d.ask_again > self.now => return,
            Step::Ask => {
                d.turn += 1;
                let alone = Alone { life: host.life, turn: d.turn };
                d.permission.ask(alone);
                Change::HoldAlone { node: host.id, alone }
            }
            Step::Return(alone) => {
                if d.permission.give_up() > host.clock(self.now) || d.ask_again > self.now {
                    return;
                }
                Change::LetGo { node: host.id, alone }
            }
        };
        d.ask_again = self.now + 400;
        self.propose(host.id, host.life, change);
    }

    /// The agent's driver.
    fn work(&mut self, host: &mut Host, d: &mut Daemon, state: &ClusterState) {
        let now = host.clock(self.now);
        let epoch = state.nodes[&host.id].lease_epoch;
        if epoch > host.kernel.lease.0 {
            host.kernel.lease = (epoch, BootTime::ZERO);
        }
        let situation = Situation {
            caught_up: true,
            lease_valid: host.kernel.lease.1 > now,
            guarded: true,
            lease_epoch: host.kernel.lease.0,
        };
        let Some(agent) = &mut d.agent else { return };
        let mut over = Vec::new();
        for (tag, run) in &mut d.runs {
            if run.opens.is_some_and(|at| at <= self.now) {
                run.opens = None;
                if run.lease_epoch == host.kernel.lease.0 {
                    host.kernel.opened(run, tag);
                } else {
                    (run.ends, run.result) = (self.now, Err(failure("deposed", false)));
                }
            }
            if run.ends <= self.now {
                over.push(tag.clone());
            }
        }
        for tag in over {
            let Some(run) = d.runs.remove(&tag) else { continue };
            if run.result.is_ok() {
                host.kernel.ended(&tag, run.operation, &run.target);
            }
            agent.finished(&tag, run.result, now, Duration::from_millis(200), situation);
        }
        agent.set_devices(host.devices.clone());
        for action in agent.plan(now, state, situation) {
            match action {
                Action::Cancel { tag } => {
                    let run = d.runs.get_mut(&tag).expect("something to cancel");
                    let soon = self.now + self.random.below(50);
                    (run.opens, run.ends, run.result) = (None, soon, Err(failure("cancelled", false)));
                }
                Action::Start(start) => {
                    let tag = start.tag.clone();
                    if start.operation == Operation::Restore {
                        check_children(host, &d.runs, state, &tag);
                    }
                    let run = self.begin(host, *start);
                    assert!(d.runs.insert(tag, run).is_none(), "two sequences of one resource at once");
                }
            }
        }
        if self.now < d.report_again {
            return;
        }
        let reports = agent.reports(state, situation);
        let change = if !reports.is_empty() {
            Change::Report { node: host.id, reports }
        } else if let Some(lease_epoch) = agent.may_rejoin(state, situation) {
            Change::Rejoin { node: host.id, lease_epoch }
        } else {
            return;
        };
        d.report_again = self.now + 400;
        self.propose(host.id, host.life, change);
    }

    fn begin(&mut self, host: &mut Host, start: Start) -> Run {
        let Start { tag, operation, epoch, lease_epoch, target, .. } = start;
        self.tell(|| format!("n{} {operation:?} {tag} epoch {epoch} lease {lease_epoch}", host.id));
        let fails = !self.calm && self.random.chance(15);
        // A removal that fails before the gate is shut leaves everything as it was.
        let silent = operation == Operation::Remove && self.random.chance(70);
        let result = if fails { Err(failure("it failed", silent)) } else { Ok(()) };
        let opening = match operation {
            Operation::Restore | Operation::Recover | Operation::Switch => true,
            Operation::Remove | Operation::Quickcheck | Operation::Amend => false,
        };
        if opening || (operation == Operation::Remove && (silent || !fails)) {
            host.kernel.shut(&tag);
        }
        let opens = self.now + self.random.below(if self.calm { 50 } else { 300 });
        let ends = opens + self.random.below(100);
        Run { operation, epoch, lease_epoch, opens: opening.then_some(opens), ends, target, result }
    }

    fn lead(&mut self, host: &mut Host, d: &mut Daemon, state: &ClusterState) {
        let (me, now) = (host.id, host.clock(self.now));
        let quorum = Quorum::new(vec![state.nodes.keys().copied().collect()]);
        let needed = |node: NodeId| {
            let alone = state.nodes.get(&node).is_some_and(|n| n.alone.is_some());
            Quorum::to_take_over(vec![state.nodes.keys().copied().collect()], node, alone)
        };
        let deposed: BTreeMap<NodeId, LeaseEpoch> = state
            .nodes
            .values()
            .filter(|n| n.standing == Standing::Deposed)
            .map(|n| (n.id, n.lease_epoch))
            .collect();
        d.proofs.retain(|node, p| deposed.get(node) == Some(&p.lease_epoch));
        for (node, below) in deposed {
            let proof = d.proofs.entry(node).or_insert_with(|| Proof::new(below));
            for voter in needed(node).voters() {
                if voter == me {
                    let left = d.granter.refuse_below(now, node, below);
                    proof.testimony(me, now, left);
                } else if !proof.heard(voter) {
                    self.send(me, voter, &Packet::Query { life: host.life, node, below });
                }
            }
            if node != me && !proof.is_fenced(now) {
                self.send(me, node, &Packet::Fence { life: host.life, below });
            }
        }
        let own_lease = host.kernel.lease.1 > now;
        d.own_lost = if own_lease { None } else { d.own_lost.or(Some(now)) };
        // Heartbeats that the leader misses are of no matter to the lease: any node may be slandered.
        let slandered = if !self.calm && self.random.chance(4) { 1 + self.random.below(5) } else { 0 };
        let health = |id: NodeId| {
            let said = d.said.get(&id);
            let unheard = is_suspected(&quorum, now, SUSPICION, |voter| {
                if voter == me {
                    return Some(Testimony { silence: d.hearing.silence(id, now, GRACE), heard_at: now });
                }
                d.said.get(&voter)?.silences.get(&id).copied()
            });
            let lacks = said.is_some_and(|s| {
                let patience = if s.had_lease { SUSPICION } else { SUSPICION + GRACE };
                s.lost.is_some_and(|since| now.since(since) >= patience)
            });
            let alive = d.hearing.last_heard(id).is_some_and(|t| now.since(t) < SUSPICION);
            let own_lost = d.own_lost.is_some_and(|t| now.since(t) >= SUSPICION + GRACE);
            NodeHealth {
                suspected: if id == me { own_lost } else { unheard || lacks || id == slandered },
                fit: if id == me { own_lease } else { alive && said.is_some_and(|s| s.lease_valid) },
                silent_below: d.proofs.get(&id).and_then(|p| {
                    p.complete_at(&needed(id), BootTime::ZERO)
                        .is_some_and(|t| now >= t)
                        .then_some(p.lease_epoch)
                }),
            }
        };
        let nodes = state.nodes.keys().map(|&id| (id, health(id))).collect();
        let forgive = if self.random.chance(2) {
            tags().into_iter().flat_map(|tag| state.nodes.keys().map(move |&id| (tag.clone(), id))).collect()
        } else {
            BTreeSet::new()
        };
        let decisions = plan(state, &Observed { nodes, forgive, ..Observed::default() });
        for decision in decisions {
            self.propose(me, host.life, decision.change);
        }
    }
}

/// A member of a hierarchy starts only when all that it depends on is in service on the same host.
fn check_children(host: &Host, runs: &BTreeMap<Tag, Run>, state: &ClusterState, tag: &Tag) {
    for child in &state.resources[tag].children {
        let open = host.kernel.vips.get(child).and_then(|v| v.gate).is_some_and(|(active, ..)| active);
        let switches = runs.get(child).is_some_and(|r| r.operation == Operation::Switch);
        assert!(open || switches, "'{tag}' starts on n{} before '{child}', on which it depends", host.id);
    }
}

fn renew(kernel: &mut Kernel, d: &mut Daemon, voters: BTreeSet<NodeId>, me: Option<&Node>) {
    let Some(node) = me else { return };
    let alone = d.permission.is_granted(me);
    if let Some(deadline) = d.holder.deadline(&Quorum::to_hold(vec![voters], node.id, alone))
        && d.holder.epoch() == kernel.lease.0
    {
        kernel.lease.1 = kernel.lease.1.max(deadline);
        if alone {
            d.permission.extended(deadline);
        }
    }
}
