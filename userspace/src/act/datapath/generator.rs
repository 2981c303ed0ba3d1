//! Announcements made in the kernel: `vipd_announce`, run with BPF_PROG_TEST_RUN.
//!
//! Why an skb program and not XDP with BPF_F_TEST_XDP_LIVE_FRAMES: live frames pass by the egress guard,
//! are lost in silence on every device without `ndo_xdp_xmit` (bridges, VLANs, a veth whose other end has
//! neither XDP nor GRO), and a run costs some twenty milliseconds more unless the program is attached
//! somewhere.

use std::net::IpAddr;

use aya::{
    Ebpf,
    maps::{Array, MapData},
    programs::{ProgramError, SchedClassifier, TestRun as _, TestRunOptions},
};
use datapath_common::{
    ANNOUNCE_CHUNK, ANNOUNCED_DROPPED, ANNOUNCED_SENT, ANNOUNCED_SHUT, Address, AnnounceChunk,
};

use super::{
    DatapathError, Generated,
    bpffs::failed,
    layout,
    links::text,
    loader::{self, ANNOUNCE},
};

const MAP: &str = "ANNOUNCE";

pub(super) struct Generator {
    program: SchedClassifier,
    chunk: Array<MapData, AnnounceChunk>,
}

impl Generator {
    /// Loads the program of the object and takes its map.
    pub(super) fn take(ebpf: &mut Ebpf) -> Result<Self, DatapathError> {
        let wrong = |reason| failed(format!("load the BPF program {ANNOUNCE}"), reason);
        let loaded: &mut SchedClassifier = loader::program(ebpf, ANNOUNCE).map_err(wrong)?;
        let program = loaded
            .load()
            .and_then(|()| loaded.info())
            // A handle of its own: the object's is wanted for attaching the others.
            .and_then(|info| SchedClassifier::from_program_info(info, ANNOUNCE.into()))
            .map_err(|error: ProgramError| wrong(text(error)))?;
        let map = ebpf.take_map(MAP).ok_or_else(|| wrong(format!("the object has no map {MAP}")))?;
        let chunk = Array::try_from(map).map_err(|error| wrong(text(error)))?;
        Ok(Self { program, chunk })
    }

    /// As [`super::Datapath::announce`].
    pub(super) fn run(
        &mut self,
        ifindex: u32,
        frame: &[u8],
        addresses: &[IpAddr],
    ) -> Result<Vec<Generated>, DatapathError> {
        let wrong = |reason| failed(format!("announce {} addresses", addresses.len()), reason);
        if addresses.len() > ANNOUNCE_CHUNK {
            return Err(wrong(format!("{ANNOUNCE_CHUNK} at once are the limit")));
        }
        let mut chunk = AnnounceChunk {
            ifindex,
            count: addresses.len() as u32,
            addresses: [Address([0; 16]); ANNOUNCE_CHUNK],
            results: [0; ANNOUNCE_CHUNK],
        };
        for (place, address) in chunk.addresses.iter_mut().zip(addresses) {
            *place = layout::address(layout::key(*address));
        }
        self.chunk.set(0, chunk, 0).map_err(|error| wrong(text(error)))?;
        let options = TestRunOptions { data_in: Some(frame), ..TestRunOptions::default() };
        let ran = self.program.test_run(options).map_err(|error| wrong(text(error)))?;
        if ran.return_value as usize == addresses.len() {
            return Ok(vec![Generated::Sent; addresses.len()]);
        }
        let chunk = self.chunk.get(&0, 0).map_err(|error| wrong(text(error)))?;
        let results = chunk.results[..addresses.len()].iter().map(|result| match *result {
            ANNOUNCED_SENT => Ok(Generated::Sent),
            ANNOUNCED_SHUT => Ok(Generated::Shut),
            ANNOUNCED_DROPPED => Ok(Generated::Dropped),
            _ => Err(wrong("the program does not know this kind of frame".to_owned())),
        });
        results.collect()
    }
}
