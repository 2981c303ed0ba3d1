//! Programs of a few instructions, assembled by hand: what benchmarks need beside the real ones, without
//! a word of it in the product. System calls are bpf(2) as the kernel documents them.

use std::{
    io,
    os::fd::{AsRawFd as _, FromRawFd as _, OwnedFd},
};

use anyhow::{Context as _, Result};
use nix::libc;

const BPF_PROG_LOAD: libc::c_long = 5;
const BPF_PROG_TEST_RUN: libc::c_long = 10;
const BPF_LINK_CREATE: libc::c_long = 28;
const PROGRAM_XDP: u32 = 6;
const ATTACH_XDP: u32 = 37;
const LIVE_FRAMES: u32 = 1 << 1;
const GENERIC: u32 = 1 << 1;
const NATIVE: u32 = 1 << 2;
pub const XDP_DROP: i32 = 1;
pub const XDP_TX: i32 = 3;
/// What fits a veth's ring even when its other end is slow.
const BATCH: u32 = 64;

/// One instruction as the kernel reads it.
#[repr(C)]
#[derive(Clone, Copy, Debug)]
pub struct Instruction {
    code: u8,
    /// Destination in the low half, source in the high.
    registers: u8,
    offset: i16,
    immediate: i32,
}

fn instruction(code: u8, to: u8, from: u8, offset: i16, immediate: i32) -> Instruction {
    Instruction { code, registers: to | (from << 4), offset, immediate }
}

/// A program under construction. Register 7 points to the frame.
#[derive(Default)]
pub struct Assembler(Vec<Instruction>);

impl Assembler {
    /// Loads the frame's start; ends the program with XDP_DROP when it is shorter than `length`.
    pub fn frame(length: i32) -> Self {
        let mut program = Self::default();
        program.push(0x61, 7, 1, 0, 0); // r7 = data
        program.push(0x61, 3, 1, 4, 0); // r3 = data_end
        program.push(0xbf, 4, 7, 0, 0); // r4 = r7
        program.push(0x07, 4, 0, 0, length); // r4 += length
        program.push(0xbd, 4, 3, 2, 0); // if r4 <= r3 skip the next two
        program.end(XDP_DROP);
        program
    }

    pub fn push(&mut self, code: u8, to: u8, from: u8, offset: i16, immediate: i32) {
        self.0.push(instruction(code, to, from, offset, immediate));
    }

    /// Writes bytes (a multiple of four) at an offset.
    pub fn write(&mut self, offset: i16, bytes: &[u8]) {
        for (i, word) in bytes.chunks_exact(4).enumerate() {
            let value = i32::from_ne_bytes([word[0], word[1], word[2], word[3]]);
            self.push(0x62, 7, 0, offset + 4 * i as i16, value);
        }
    }

    /// r0 = `base` + `stride` times a random number below `count`.
    pub fn random(&mut self, base: u32, count: u32, stride: u32) {
        self.push(0x85, 0, 0, 0, 7); // bpf_get_prandom_u32
        self.push(0x97, 0, 0, 0, count as i32); // r0 %= count
        self.push(0x27, 0, 0, 0, stride as i32); // r0 *= stride
        self.push(0x07, 0, 0, 0, base as i32); // r0 += base (below 2^31)
    }

    /// Writes r0, kept in r8, in network order.
    pub fn write_random(&mut self, offset: i16) {
        self.push(0xbf, 8, 0, 0, 0); // r8 = r0
        self.push(0xdc, 0, 0, 0, 32); // r0 = be32(r0)
        self.push(0x63, 7, 0, offset, 0); // *(u32 *)(r7 + offset) = r0
    }

    /// Writes the Internet checksum of words that sum up to `rest`, and r8.
    pub fn write_checksum(&mut self, offset: i16, rest: u32) {
        self.push(0xbf, 1, 8, 0, 0); // r1 = r8
        self.push(0x77, 1, 0, 0, 16); // r1 >>= 16
        self.push(0x57, 8, 0, 0, 0xffff); // r8 &= 0xffff
        self.push(0x0f, 1, 8, 0, 0); // r1 += r8
        self.push(0x07, 1, 0, 0, rest as i32); // r1 += rest
        for _ in 0..2 {
            self.push(0xbf, 2, 1, 0, 0); // r2 = r1
            self.push(0x77, 2, 0, 0, 16); // r2 >>= 16
            self.push(0x57, 1, 0, 0, 0xffff); // r1 &= 0xffff
            self.push(0x0f, 1, 2, 0, 0); // r1 += r2
        }
        self.push(0xa7, 1, 0, 0, 0xffff); // r1 ^= 0xffff
        self.push(0xdc, 1, 0, 0, 16); // r1 = be16(r1)
        self.push(0x6b, 7, 1, offset, 0); // *(u16 *)(r7 + offset) = r1
    }

    pub fn end(&mut self, action: i32) {
        self.push(0xb7, 0, 0, 0, action);
        self.push(0x95, 0, 0, 0, 0);
    }

    /// Loads it as an XDP program.
    pub fn load(&self, name: &str) -> Result<Program> {
        #[repr(C)]
        #[derive(Default)]
        struct Load {
            kind: u32,
            count: u32,
            instructions: u64,
            license: u64,
            log_level: u32,
            log_size: u32,
            log: u64,
            kernel_version: u32,
            flags: u32,
            name: [u8; 16],
            ifindex: u32,
            attach_type: u32,
        }
        let mut log = vec![0_u8; 64 * 1024];
        let mut attributes = Load {
            kind: PROGRAM_XDP,
            count: self.0.len() as u32,
            instructions: self.0.as_ptr() as u64,
            license: c"GPL".as_ptr() as u64,
            log_level: 1,
            log_size: log.len() as u32,
            log: log.as_mut_ptr() as u64,
            attach_type: ATTACH_XDP,
            ..Load::default()
        };
        attributes.name[..name.len()].copy_from_slice(name.as_bytes());
        let fd = bpf(BPF_PROG_LOAD, &mut attributes)
            .with_context(|| format!("loading {name}: {}", String::from_utf8_lossy(&log)))?;
        Ok(Program(owned(fd)))
    }
}

/// A loaded XDP program.
pub struct Program(OwnedFd);

/// Detaches when dropped.
pub struct Attached(#[expect(dead_code, reason = "held for its drop")] OwnedFd);

impl Program {
    /// Needs no frame: always the same verdict.
    pub fn always(action: i32, name: &str) -> Result<Self> {
        let mut program = Assembler::default();
        program.end(action);
        program.load(name)
    }

    /// Attaches to an interface of the calling thread's namespace.
    pub fn attach(&self, ifindex: u32, native: bool) -> Result<Attached> {
        #[repr(C)]
        #[derive(Default)]
        struct Create {
            program: u32,
            ifindex: u32,
            attach_type: u32,
            flags: u32,
            rest: [u64; 4],
        }
        let mut attributes = Create {
            program: self.0.as_raw_fd() as u32,
            ifindex,
            attach_type: ATTACH_XDP,
            flags: if native { NATIVE } else { GENERIC },
            ..Create::default()
        };
        let fd = bpf(BPF_LINK_CREATE, &mut attributes).context("attaching an XDP program")?;
        Ok(Attached(owned(fd)))
    }

    /// Runs it over frames as if they had arrived on the interface (which must have a native program),
    /// and does with them as it says.
    pub fn send(&self, frame: &[u8], ifindex: u32, count: u32) -> Result<()> {
        #[repr(C)]
        #[derive(Default)]
        struct Run {
            program: u32,
            retval: u32,
            data_size_in: u32,
            data_size_out: u32,
            data_in: u64,
            data_out: u64,
            repeat: u32,
            duration: u32,
            ctx_size_in: u32,
            ctx_size_out: u32,
            ctx_in: u64,
            ctx_out: u64,
            flags: u32,
            cpu: u32,
            batch_size: u32,
            pad: u32,
        }
        // xdp_md: data, data_end, data_meta, ingress_ifindex, rx_queue_index, egress_ifindex
        let context = [0, frame.len() as u32, 0, ifindex, 0, 0];
        let mut attributes = Run {
            program: self.0.as_raw_fd() as u32,
            data_size_in: frame.len() as u32,
            data_in: frame.as_ptr() as u64,
            repeat: count,
            ctx_size_in: size_of_val(&context) as u32,
            ctx_in: context.as_ptr() as u64,
            flags: LIVE_FRAMES,
            batch_size: BATCH,
            ..Run::default()
        };
        bpf(BPF_PROG_TEST_RUN, &mut attributes).context("sending frames")?;
        Ok(())
    }
}

fn bpf<T>(command: libc::c_long, attributes: &mut T) -> io::Result<i32> {
    // SAFETY: bpf(2) accesses at most the given size of a live, exclusively borrowed structure laid out
    // as the kernel expects for the command; addresses inside it are of buffers that outlive the call.
    let answer = unsafe { libc::syscall(libc::SYS_bpf, command, attributes as *mut T, size_of::<T>()) };
    if answer < 0 { Err(io::Error::last_os_error()) } else { Ok(answer as i32) }
}

fn owned(fd: i32) -> OwnedFd {
    // SAFETY: the kernel has just given us this descriptor; nobody else knows it.
    unsafe { OwnedFd::from_raw_fd(fd) }
}
