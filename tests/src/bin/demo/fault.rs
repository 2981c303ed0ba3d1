//! What is done to the owner, what the client then sees, and how the host comes back.

use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use vipd_tests::{
    capture::Capture,
    lab::PATIENCE,
    timeline::{Moment, Timeline},
};

use crate::{
    Stage,
    screen::{Ink, Screen},
};

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fault {
    Kill,
    Freeze,
    Cut,
}

/// What the client saw; times since the fault.
pub struct Outcome {
    pub fault: Fault,
    pub from: String,
    pub to: String,
    pub last_old: Option<Duration>,
    pub first_new: Duration,
    pub all_new: Duration,
    pub double_answers: usize,
    /// Answers seen in all.
    pub frames: usize,
}

impl Fault {
    pub const ALL: [Self; 3] = [Self::Kill, Self::Freeze, Self::Cut];

    pub fn title(self) -> &'static str {
        match self {
            Self::Kill => "the owner's daemon is killed (SIGKILL)",
            Self::Freeze => "the owner's daemon is frozen (SIGSTOP)",
            Self::Cut => "the owner's links are cut",
        }
    }

    pub fn short(self) -> &'static str {
        match self {
            Self::Kill => "SIGKILL",
            Self::Freeze => "SIGSTOP",
            Self::Cut => "links cut",
        }
    }

    fn happened(self) -> &'static str {
        match self {
            Self::Kill => "vipd is killed; its kernel still holds every address",
            Self::Freeze => "vipd is frozen; its kernel still holds every address",
            Self::Cut => "the cables are pulled; vipd and its kernel live on",
        }
    }

    fn strike(self, stage: &Stage, owner: usize) -> Result<Moment> {
        match self {
            Self::Kill => stage.lab.host(owner).sigkill(),
            Self::Freeze => stage.lab.host(owner).sigstop(),
            Self::Cut => {
                let at = Moment::now();
                stage.lab.segment.cut(owner)?;
                Ok(at)
            }
        }
    }

    fn undo(self, stage: &Stage, owner: usize) -> Result<&'static str> {
        match self {
            Self::Kill => stage.lab.host(owner).start().map(|()| "started again"),
            Self::Freeze => stage.lab.host(owner).sigcont().map(|_| "thawed"),
            Self::Cut => stage.lab.segment.mend(owner).map(|()| "plugged in again"),
        }
    }

    /// Strikes the present owner, waits for the next one, shows what the client saw, and brings the
    /// host back.
    pub fn inflict(self, screen: &Screen, stage: &Stage, capture: &Capture) -> Result<Outcome> {
        let lab = &stage.lab;
        let first = &stage.resources[0];
        let old = lab.owner(0, &first.0)?;
        let (old_name, old_mac) = (lab.host(old).name().to_owned(), lab.host(old).mac());
        let begin = Moment::now();
        // Everything is well before it is made worse.
        lab.wait(PATIENCE, "the owner answers for all addresses", || {
            let seen = capture.timeline().between(begin, Moment(u64::MAX));
            let silent =
                |(tag, a): &(String, _)| seen.first_answer(*a, old_mac).is_none().then(|| tag.clone());
            let silent: Vec<String> = stage.resources.iter().filter_map(silent).collect();
            ensure!(silent.is_empty(), "no answer for {} of them", silent.len());
            Ok(())
        })?;

        let struck = self.strike(stage, old)?;
        let seen = lab.wait(PATIENCE, "another host answers for all addresses", || {
            let seen = capture.timeline().between(struck, Moment(u64::MAX));
            let waiting = stage.resources.iter().filter(|(_, a)| first_other(&seen, *a, old_mac).is_none());
            ensure!(waiting.clone().count() == 0, "{} addresses wait for it", waiting.count());
            Ok(seen)
        })?;
        let (new_mac, first_new) = first_other(&seen, first.1, old_mac).context("no other host answers")?;
        let new = lab.host_of(new_mac).context("a stranger answers")?;
        let firsts = stage.resources.iter().filter_map(|(_, a)| Some(first_other(&seen, *a, old_mac)?.1));
        let all_new = firsts.max().unwrap_or(first_new);
        let last_old =
            stage.resources.iter().filter_map(|(_, a)| seen.last_use(*a, old_mac)).map(|r| r.time).max();
        let announced = seen.first_announcement(first.1, new_mac).map(|r| r.time);

        let count = stage.resources.len();
        let mut moments = vec![
            (struck, Ink::Bad, format!("{old_name}: {}", self.happened())),
            (first_new, Ink::Good, format!("{}: first answer for {}", new.name(), first.1)),
            (all_new, Ink::Good, format!("{}: the last of {count} addresses is answered", new.name())),
        ];
        moments.extend(last_old.map(|at| {
            (
                at,
                Ink::Dim,
                format!("{old_name}: last answer for any of {count} addresses; silent from now on"),
            )
        }));
        moments.extend(announced.map(|at| (at, Ink::Good, format!("{}: announces {}", new.name(), first.1))));
        moments.sort_by_key(|(at, ..)| *at);
        for (at, ink, text) in moments {
            screen.at(at.since(struck), ink, &text);
        }
        if last_old.is_none() {
            screen.say(&format!("             {old_name} was not heard again"));
        }

        // Back, before the next fault; and it must not take anything back by itself.
        let since = Instant::now();
        let back = self.undo(stage, old)?;
        lab.wait_whole()?;
        lab.wait(PATIENCE, "the returned host holds nothing", || {
            for (_, address) in &stage.resources[..2] {
                ensure!(!lab.host(old).has_address(&address.to_string())?, "{address} is still there");
            }
            Ok(())
        })?;
        println!();
        screen
            .done(&format!("{old_name} is {back}: a member again, silent, holding nothing"), since.elapsed());

        let seen = capture.timeline().between(begin, Moment(u64::MAX));
        let mut double_answers = 0;
        for (_, address) in &stage.resources {
            let owner = first_other(&seen, *address, old_mac).map_or(new_mac, |(mac, _)| mac);
            double_answers += seen.outside_terms(*address, &[old_mac, owner]).len();
        }
        let line = format!("{double_answers} frames were answered by two hosts");
        if double_answers == 0 {
            screen.done(&line, since.elapsed());
        } else {
            screen.say(&screen.ink(Ink::Bad, &format!("✘ {line}")));
        }
        Ok(Outcome {
            fault: self,
            from: old_name,
            to: new.name().to_owned(),
            last_old: last_old.map(|last| last.since(struck)),
            first_new: first_new.since(struck),
            all_new: all_new.since(struck),
            double_answers,
            frames: seen.answers_by_host().values().sum(),
        })
    }
}

/// The first answer that is not the old owner's: whose and when.
fn first_other(
    seen: &Timeline,
    address: std::net::IpAddr,
    old: vipd_tests::frames::Mac,
) -> Option<(vipd_tests::frames::Mac, Moment)> {
    seen.of(address).find(|r| r.mac != old && r.kind.is_answer()).map(|r| (r.mac, r.time))
}
