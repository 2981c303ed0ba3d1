//! Who may ask: by the credentials that the kernel vouches for (SO_PEERCRED).

use std::ffi::CString;

use nix::unistd::{Gid, Group, Uid, User, getgrouplist};
use tokio::net::unix::UCred;

use super::BindError;

/// Root, the daemon's own user, and the members of one group.
pub struct Access {
    own: Uid,
    group: Option<Group>,
}

impl Access {
    pub fn new(group: Option<&str>) -> Result<Self, BindError> {
        let group = match group {
            None => None,
            Some(name) => match Group::from_name(name) {
                Ok(Some(group)) => Some(group),
                Ok(None) | Err(_) => return Err(BindError::NoGroup(name.to_owned())),
            },
        };
        Ok(Self { own: Uid::effective(), group })
    }

    pub fn gid(&self) -> Option<Gid> {
        self.group.as_ref().map(|g| g.gid)
    }

    /// May block on the host's user database.
    pub fn allows(&self, peer: UCred) -> Result<(), String> {
        self.allows_user(Uid::from_raw(peer.uid()), Gid::from_raw(peer.gid()))
    }

    fn allows_user(&self, uid: Uid, gid: Gid) -> Result<(), String> {
        if uid.is_root() || uid == self.own {
            return Ok(());
        }
        let user = User::from_uid(uid).ok().flatten();
        if let Some(group) = &self.group {
            let supplementary = || {
                let user = user.as_ref()?;
                let name = CString::new(user.name.as_str()).ok()?;
                getgrouplist(&name, user.gid).ok()
            };
            if gid == group.gid || supplementary().is_some_and(|groups| groups.contains(&group.gid)) {
                return Ok(());
            }
        }
        let who = user.map_or_else(|| format!("user {uid}"), |u| format!("user '{}'", u.name));
        let remedy = match &self.group {
            Some(group) => format!("run vipctl as root, or add the user to the group '{}'", group.name),
            None => "run vipctl as root, or name a group with 'control-group' in node.toml".to_owned(),
        };
        Err(format!("{who} may not control vipd: {remedy}"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_unknown_group_is_named() {
        let e = Access::new(Some("no-such-group")).err().expect("unknown").to_string();
        assert!(e.contains("no-such-group") && e.contains("groupadd"), "{e}");
    }

    #[test]
    fn root_the_daemons_user_and_the_group_may_ask() {
        let (root, nobody, someone) = (Uid::from_raw(0), Uid::from_raw(65534), Uid::from_raw(4242));
        let (daemon, other) = (Gid::from_raw(1), Gid::from_raw(4242));
        let mut access = Access::new(Some("daemon")).expect("a group of every Linux");
        access.own = someone;
        assert!(access.allows_user(root, other).is_ok());
        assert!(access.allows_user(someone, other).is_ok());
        assert!(access.allows_user(nobody, daemon).is_ok(), "by its group");
        let reason = access.allows_user(nobody, other).unwrap_err();
        assert!(reason.contains("'nobody'") && reason.contains("'daemon'"), "{reason}");
        access.group = None;
        assert!(access.allows_user(nobody, daemon).unwrap_err().contains("control-group"));
    }
}
