//! Attaching to interfaces: an XDP program on ingress, a tc program on egress, as pinned links. The
//! names of the pins say what they are: `xdp-<ifindex>-native`, `xdp-<ifindex>-generic`,
//! `egress-<ifindex>`. Before Linux 6.6 (no tcx) the egress program is a clsact filter, which needs no
//! link to stay; then `clsact-<ifindex>`, a pin of the program, tells that it is there.
//!
//! A link is never detached to be replaced: its program is exchanged, which is atomic.

use std::path::{Path, PathBuf};

use aya::{
    Ebpf,
    programs::{
        LinkOrder, ProgramError, SchedClassifier, TcAttachType, Xdp, XdpMode,
        links::{FdLink, LinkError, PinnedLink},
        tc::{NlOptions, SchedClassifierLink, TcAttachOptions, TcHandle, qdisc_add_clsact},
        xdp::XdpLink,
    },
};
use nix::net::if_::if_indextoname;
use tracing::{info, warn};

use super::{
    Attachment, DatapathError, InterfaceFacts,
    bpffs::{self, failed},
    detach::detach_pinned,
    loader, query,
};
use crate::config::DatapathMode;

/// Where the filter lives on kernels without tcx (before 6.6): fixed, so that the next process finds and
/// replaces it.
const CLSACT_PRIORITY: u16 = 0x7670;
const CLSACT_HANDLE: u16 = 1;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Pin {
    Xdp { ifindex: u32, native: bool },
    Egress { ifindex: u32 },
    Clsact { ifindex: u32 },
}

impl Pin {
    pub(super) fn parse(path: &Path) -> Option<Self> {
        let mut words = path.file_name()?.to_str()?.split('-');
        let pin = match (words.next()?, words.next()?.parse().ok()?, words.next()) {
            ("xdp", ifindex, Some("native")) => Self::Xdp { ifindex, native: true },
            ("xdp", ifindex, Some("generic")) => Self::Xdp { ifindex, native: false },
            ("egress", ifindex, None) => Self::Egress { ifindex },
            ("clsact", ifindex, None) => Self::Clsact { ifindex },
            _ => return None,
        };
        words.next().is_none().then_some(pin)
    }

    pub(super) fn path(self, dir: &Path) -> PathBuf {
        dir.join(match self {
            Self::Xdp { ifindex, native: true } => format!("xdp-{ifindex}-native"),
            Self::Xdp { ifindex, native: false } => format!("xdp-{ifindex}-generic"),
            Self::Egress { ifindex } => format!("egress-{ifindex}"),
            Self::Clsact { ifindex } => format!("clsact-{ifindex}"),
        })
    }

    pub(super) fn ifindex(self) -> u32 {
        match self {
            Self::Xdp { ifindex, .. } | Self::Egress { ifindex } | Self::Clsact { ifindex } => ifindex,
        }
    }
}

/// Detaches a pinned link and removes the pin. It is no error when it is gone already.
pub(super) fn release(path: &Path) -> Result<(), DatapathError> {
    if let Some(Pin::Clsact { ifindex }) = Pin::parse(path) {
        // Dropping the handle removes the filter; with its interface it is gone already.
        drop(if_indextoname(ifindex).ok().and_then(|name| clsact_filter(&name.to_string_lossy()).ok()));
    } else if path.exists() {
        // A link to an interface that is gone says so; then, and on kernels that cannot do this (before
        // 5.9), the link goes with its pin.
        let _ = detach_pinned(path);
    }
    bpffs::remove(path)
}

/// The filter that [`Links::create_clsact`] makes, whether or not it is there. Detaches when dropped.
fn clsact_filter(interface: &str) -> Result<SchedClassifierLink, String> {
    let handle = TcHandle::new(0, CLSACT_HANDLE);
    SchedClassifierLink::attached(interface, TcAttachType::Egress, CLSACT_PRIORITY, handle, None)
        .map_err(text)
}

fn exists(ifindex: u32) -> bool {
    if_indextoname(ifindex).is_ok()
}

/// The two programs and the directory of their links' pins.
pub(super) struct Links {
    dir: PathBuf,
    ebpf: Ebpf,
}

impl Links {
    /// The programs must be loaded.
    pub(super) fn new(dir: PathBuf, ebpf: Ebpf) -> Self {
        Self { dir, ebpf }
    }

    fn xdp(&mut self) -> Result<&mut Xdp, String> {
        loader::program(&mut self.ebpf, loader::XDP)
    }

    fn egress(&mut self) -> Result<&mut SchedClassifier, String> {
        loader::program(&mut self.ebpf, loader::EGRESS)
    }

    /// Puts the fresh programs into all links that are pinned in `from`, which may be an older layout's
    /// directory, and pins them in ours. Links that lead nowhere are removed.
    ///
    /// # Errors
    /// For another directory, when a link cannot be given its new program: it stays where it is, with the old
    /// one. In our own directory that is no error: the old program has the same maps, and does.
    pub(super) fn adopt_all(&mut self, from: &Path) -> Result<(), DatapathError> {
        for path in bpffs::entries(from) {
            let Some(pin) = Pin::parse(&path) else { continue };
            if !exists(pin.ifindex()) {
                bpffs::remove(&path)?;
                continue;
            }
            let moves = from != self.dir;
            match self.adopt(pin, &path) {
                Ok(link) => {
                    let ours = pin.path(&self.dir);
                    // It is there already if the process that moved it was killed on its way.
                    if let Some(link) = link.filter(|_| moves && !ours.exists()) {
                        link.pin(&ours)
                            .map_err(|error| failed(format!("pin {}", ours.display()), text(error)))?;
                    }
                    if moves {
                        bpffs::remove(&path)?;
                    }
                }
                Err(Unadopted::Gone(reason)) => {
                    info!(pin = %path.display(), "removing a link that leads nowhere: {reason}");
                    bpffs::remove(&path)?;
                }
                Err(Unadopted::Failed(reason)) if moves => {
                    return Err(failed(format!("give {} the new program", path.display()), reason));
                }
                Err(Unadopted::Failed(reason)) => {
                    warn!(pin = %path.display(), "its old program stays at work: {reason}");
                }
            }
        }
        Ok(())
    }

    /// Puts the fresh program to work where the old one is. A filter has no link.
    fn adopt(&mut self, pin: Pin, path: &Path) -> Result<Option<FdLink>, Unadopted> {
        match pin {
            Pin::Xdp { .. } => self.adopt_xdp(path).map(Some),
            Pin::Egress { .. } => self.adopt_egress(path).map(Some),
            Pin::Clsact { ifindex } => {
                let name = if_indextoname(ifindex).map_err(|error| Unadopted::Gone(text(error)))?;
                self.create_clsact(ifindex, &name.to_string_lossy()).map_err(Unadopted::Failed)?;
                Ok(None)
            }
        }
    }

    /// Makes sure that a pinned link still leads to its interface (updating it to the program that it
    /// has changes nothing), or removes the pin: another interface may have come under the number, or
    /// somebody has detached it by force.
    fn readopt(&mut self, path: &Path) -> Result<(), DatapathError> {
        let Some(pin) = Pin::parse(path) else { return Ok(()) };
        match self.adopt(pin, path) {
            Ok(_) => Ok(()),
            Err(Unadopted::Gone(reason)) => {
                info!(pin = %path.display(), "it leads nowhere: {reason}");
                bpffs::remove(path)
            }
            Err(Unadopted::Failed(reason)) => {
                Err(failed(format!("look whether {} is attached", path.display()), reason))
            }
        }
    }

    fn adopt_xdp(&mut self, path: &Path) -> Result<FdLink, Unadopted> {
        let pinned = PinnedLink::from_pin(path).map_err(Unadopted::link)?;
        let link = XdpLink::try_from(FdLink::from(pinned)).map_err(Unadopted::link)?;
        let program = self.xdp().map_err(Unadopted::Failed)?;
        let id = program.attach_to_link(link).map_err(Unadopted::program)?;
        let link = program.take_link(id).map_err(Unadopted::program)?;
        FdLink::try_from(link).map_err(Unadopted::link)
    }

    fn adopt_egress(&mut self, path: &Path) -> Result<FdLink, Unadopted> {
        let pinned = PinnedLink::from_pin(path).map_err(Unadopted::link)?;
        let link = SchedClassifierLink::try_from(FdLink::from(pinned)).map_err(Unadopted::link)?;
        let program = self.egress().map_err(Unadopted::Failed)?;
        let id = program.attach_to_link(link).map_err(Unadopted::program)?;
        let link = program.take_link(id).map_err(Unadopted::program)?;
        FdLink::try_from(link).map_err(Unadopted::link)
    }

    /// The mode in which XDP is attached by us.
    pub(super) fn xdp_mode(&self, ifindex: u32) -> Option<bool> {
        [true, false]
            .into_iter()
            .find(|native| Pin::Xdp { ifindex, native: *native }.path(&self.dir).exists())
    }

    /// Attaches what is not attached yet.
    pub(super) fn attach(
        &mut self,
        interface: &InterfaceFacts,
        mode: DatapathMode,
    ) -> Result<Attachment, DatapathError> {
        self.guard_egress(interface)?;
        Ok(self.attach_xdp(interface, mode))
    }

    /// The egress program alone.
    pub(super) fn guard_egress(&mut self, interface: &InterfaceFacts) -> Result<(), DatapathError> {
        for path in bpffs::entries(&self.dir) {
            if Pin::parse(&path).is_some_and(|pin| pin.ifindex() == interface.index) {
                self.readopt(&path)?;
            }
        }
        self.attach_egress(interface)
    }

    fn attach_xdp(&mut self, interface: &InterfaceFacts, mode: DatapathMode) -> Attachment {
        let plan = Plan::new(interface, mode);
        let attached = self.xdp_mode(interface.index);
        if let Some(native) = attached {
            match (&plan, native) {
                (Plan::Native { .. }, true) => return Attachment::Native,
                (Plan::Native { fallback: true }, false) => {
                    let reason = "native mode was refused earlier; detach to try again".into();
                    return Attachment::Generic { reason };
                }
                (Plan::Generic { reason }, false) => return Attachment::Generic { reason: reason.clone() },
                (Plan::Native { fallback: false }, false) | (Plan::Generic { .. }, true) => {
                    // The operator wants the other mode: the kernel has no exchange for that.
                    if let Err(error) = self.detach_xdp(interface.index) {
                        return Attachment::None { reason: error.to_string() };
                    }
                }
            }
        }
        match query::xdp_programs(interface.index) {
            Ok(programs) => {
                if let Some(id) = programs.first() {
                    let name = &interface.name;
                    let program = query::describe(*id);
                    return Attachment::None {
                        reason: format!(
                            "another XDP program, {program}, is attached to {name}: it is left alone"
                        ),
                    };
                }
            }
            Err(error) => {
                let reason = format!("cannot ask which XDP program {} has: {error}", interface.name);
                return Attachment::None { reason };
            }
        }
        match plan {
            Plan::Generic { reason } => match self.create_xdp(interface.index, false) {
                Ok(()) => Attachment::Generic { reason },
                Err(error) => Attachment::None { reason: format!("generic XDP: {error}") },
            },
            Plan::Native { fallback } => match self.create_xdp(interface.index, true) {
                Ok(()) => Attachment::Native,
                Err(native) if fallback => match self.create_xdp(interface.index, false) {
                    Ok(()) => Attachment::Generic { reason: format!("native XDP: {native}") },
                    Err(generic) => {
                        Attachment::None { reason: format!("native XDP: {native}; generic XDP: {generic}") }
                    }
                },
                Err(error) => Attachment::None { reason: format!("native XDP: {error}") },
            },
        }
    }

    fn create_xdp(&mut self, ifindex: u32, native: bool) -> Result<(), String> {
        let mode = if native { XdpMode::Driver } else { XdpMode::Skb };
        let id = self.xdp()?.attach_to_if_index(ifindex, mode).map_err(text)?;
        let link = self.xdp()?.take_link(id).map_err(text)?;
        // Without links (before Linux 5.9) the program would leave with this process.
        let link =
            FdLink::try_from(link).map_err(|_| "this kernel has no XDP links (Linux 5.9)".to_owned())?;
        let path = Pin::Xdp { ifindex, native }.path(&self.dir);
        link.pin(&path).map_err(|error| format!("pinning {}: {}", path.display(), text(error)))?;
        Ok(())
    }

    fn attach_egress(&mut self, interface: &InterfaceFacts) -> Result<(), DatapathError> {
        let ifindex = interface.index;
        let path = Pin::Egress { ifindex }.path(&self.dir);
        let filter = Pin::Clsact { ifindex }.path(&self.dir);
        if path.exists() || filter.exists() {
            return Ok(());
        }
        let action = || format!("attach the egress guard to {}", interface.name);
        match self.create_tcx(interface, &path) {
            Ok(()) => Ok(()),
            Err(tcx) => {
                info!(interface = %interface.name, "no tcx ({tcx}), using clsact");
                self.create_clsact(ifindex, &interface.name)
                    .map_err(|clsact| failed(action(), format!("tcx: {tcx}; clsact: {clsact}")))
            }
        }
    }

    /// First in line: what we forbid nobody else should see leave.
    fn create_tcx(&mut self, interface: &InterfaceFacts, path: &Path) -> Result<(), String> {
        let options = TcAttachOptions::TcxOrder(LinkOrder::first());
        let id = self
            .egress()?
            .attach_with_options(&interface.name, TcAttachType::Egress, options)
            .map_err(text)?;
        let link = self.egress()?.take_link(id).map_err(text)?;
        FdLink::try_from(link).map_err(text)?.pin(path).map_err(text)?;
        Ok(())
    }

    /// A filter that stays when its maker dies; replaced where there is one of ours already.
    fn create_clsact(&mut self, ifindex: u32, interface: &str) -> Result<(), String> {
        let id = match self.egress()?.attach_to_link(clsact_filter(interface)?) {
            Ok(id) => id,
            Err(_) => {
                // It is there already, or the attachment below says what is wrong.
                let _ = qdisc_add_clsact(interface);
                let handle = TcHandle::new(0, CLSACT_HANDLE);
                let options = NlOptions { priority: CLSACT_PRIORITY, handle, ..NlOptions::default() };
                self.egress()?
                    .attach_with_options(interface, TcAttachType::Egress, TcAttachOptions::Netlink(options))
                    .map_err(text)?
            }
        };
        // Dropping it would detach the filter.
        std::mem::forget(self.egress()?.take_link(id).map_err(text)?);
        let path = Pin::Clsact { ifindex }.path(&self.dir);
        bpffs::remove(&path).map_err(text)?;
        self.egress()?.pin(&path).map_err(text)
    }

    fn detach_xdp(&self, ifindex: u32) -> Result<(), DatapathError> {
        for native in [true, false] {
            release(&Pin::Xdp { ifindex, native }.path(&self.dir))?;
        }
        Ok(())
    }

    pub(super) fn detach(&mut self, ifindex: u32) -> Result<(), DatapathError> {
        self.detach_xdp(ifindex)?;
        for pin in [Pin::Egress { ifindex }, Pin::Clsact { ifindex }] {
            let path = pin.path(&self.dir);
            if path.exists() {
                release(&path)?;
            }
        }
        Ok(())
    }
}

/// Why a pinned link did not get the fresh program.
#[derive(Debug)]
enum Unadopted {
    /// It is attached to nothing: its interface went, or it was detached and only the pin is left.
    Gone(String),
    /// Anything else: the link may well be at work.
    Failed(String),
}

impl Unadopted {
    fn link(error: LinkError) -> Self {
        match &error {
            // A pin under this name that is no such link does nothing for us.
            LinkError::InvalidLink | LinkError::UnknownLinkType(_) => Self::Gone(text(error)),
            LinkError::SyscallError(call) => Self::system(call.io_error.raw_os_error(), text(&error)),
        }
    }

    fn program(error: ProgramError) -> Self {
        match &error {
            ProgramError::SyscallError(call) => Self::system(call.io_error.raw_os_error(), text(&error)),
            _ => Self::Failed(text(error)),
        }
    }

    /// The kernel says ENOLINK of a link that has lost its interface.
    fn system(code: Option<i32>, reason: String) -> Self {
        match code {
            Some(nix::libc::ENOLINK | nix::libc::ENOENT) => Self::Gone(reason),
            _ => Self::Failed(reason),
        }
    }
}

/// What to try, in which order.
enum Plan {
    Native { fallback: bool },
    Generic { reason: String },
}

impl Plan {
    fn new(interface: &InterfaceFacts, mode: DatapathMode) -> Self {
        let name = &interface.name;
        match mode {
            DatapathMode::Native => Self::Native { fallback: false },
            DatapathMode::Generic | DatapathMode::None => {
                Self::Generic { reason: "generic mode is configured".into() }
            }
            DatapathMode::Auto => match interface.kind.as_deref() {
                // A native XDP_TX on veth is lost unless the peer runs a native program too.
                Some("veth") => Self::Generic {
                    reason: format!(
                        "{name} is a veth: native answers are lost unless its peer runs XDP as well"
                    ),
                },
                // These take native XDP, if at all, in the frames of the device below them.
                Some(
                    kind @ ("bridge" | "vlan" | "macvlan" | "macvtap" | "ipvlan" | "vrf" | "dummy" | "vxlan"
                    | "tun" | "ifb"),
                ) => Self::Generic { reason: format!("{name} is a {kind}, which has no native XDP") },
                _ => Self::Native { fallback: true },
            },
        }
    }
}

/// An error with all its causes: aya's outer errors often only name the system call.
pub(super) fn text(error: impl std::error::Error) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        let next = error.to_string();
        if !text.ends_with(&next) {
            text = format!("{text}: {next}");
        }
        cause = error.source();
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_a_link_without_an_interface_is_gone() {
        let failed = |code| {
            let io_error = std::io::Error::from_raw_os_error(code);
            Unadopted::program(ProgramError::SyscallError(aya::sys::SyscallError {
                call: "bpf_link_update",
                io_error,
            }))
        };
        assert!(matches!(failed(nix::libc::ENOLINK), Unadopted::Gone(_)));
        for unrelated in [nix::libc::EPERM, nix::libc::ENOMEM, nix::libc::EMFILE, nix::libc::EINVAL] {
            assert!(matches!(failed(unrelated), Unadopted::Failed(_)), "{unrelated}");
        }
    }

    #[test]
    fn pins_are_named_by_what_they_are() {
        let dir = Path::new("/d");
        for pin in [
            Pin::Xdp { ifindex: 7, native: true },
            Pin::Xdp { ifindex: 7, native: false },
            Pin::Egress { ifindex: 12 },
            Pin::Clsact { ifindex: 12 },
        ] {
            assert_eq!(Pin::parse(&pin.path(dir)), Some(pin));
        }
        for other in ["VIPS", "xdp-x-native", "xdp-1", "xdp-1-offload", "egress-1-native", "xdp-1-native-2"] {
            assert_eq!(Pin::parse(&dir.join(other)), None, "{other}");
        }
    }
}
