//! Lists of system calls: one for the process, and a shorter one for each kind of thread.
//!
//! ```text
//!  arm()      process: everything that any of its threads does            others: EPERM
//!             what only an intruder does (execve, ptrace, mount …)        the process is killed
//!    │        threads may be made, processes not; no memory is made executable
//!    ▼
//!  enter()    thread: what its kind does                                   others: EPERM
//! ```
//!
//! Filters only ever add up, and a thread inherits those of the one that starts it. A thread that starts others
//! therefore has to be of a kind that may do what they do: a vCPU starts none. A list that is too short is no danger to
//! a machine: the call fails as it would for want of a permission, and the kernel's audit log names it.

use std::collections::BTreeMap;
use std::env::consts::ARCH;
use std::sync::OnceLock;

use libc::c_long;
use seccompiler::{
    BpfProgram, SeccompAction, SeccompCmpArgLen as Len, SeccompCmpOp as Op, SeccompCondition, SeccompFilter,
    SeccompRule, apply_filter,
};

use crate::calls::{CONNECTIONS, CONTROL, DEADLY, DISK, FILES, LIFE};
use crate::{ConfineError, Layer};

/// What a thread does.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Thread {
    /// Runs a vCPU: enters the guest, and wakes devices.
    Vcpu,
    /// Serves a disk.
    Disk,
    /// Serves random numbers.
    Entropy,
    /// Gives memory back to the host.
    Balloon,
    /// Serves connections over unix sockets: those of the guest, or its network.
    Connections,
    /// Serves files of shared folders.
    Files,
}

/// The kinds, in the order of their programs.
const KINDS: [Thread; 6] = [
    Thread::Vcpu,
    Thread::Disk,
    Thread::Entropy,
    Thread::Balloon,
    Thread::Connections,
    Thread::Files,
];

/// The programs of all kinds, once the process is armed.
static ARMED: OnceLock<[BpfProgram; KINDS.len()]> = OnceLock::new();

type Rules = BTreeMap<i64, Vec<SeccompRule>>;

/// Puts the process's list in force, for this thread and those that it starts from now on. To be called with one
/// thread.
pub fn arm() -> Result<Layer, ConfineError> {
    let mut whole = process()?;
    let mut programs = Vec::new();
    for kind in KINDS {
        programs.push(allow(thread(kind)?)?);
    }
    // The one that decides over `clone3` by refusing it: its arguments lie in memory, where no filter can look, and the
    // C library then takes `clone`, whose flags are looked at.
    let mut refused = Rules::new();
    refused.insert(libc::SYS_clone3, Vec::new());
    let refused = compile(
        refused,
        SeccompAction::Allow,
        SeccompAction::Errno(libc::ENOSYS.cast_unsigned()),
    )?;
    let deadly = DEADLY.iter().map(|call| (*call, Vec::new())).collect();
    let deadly = compile(deadly, SeccompAction::Allow, SeccompAction::KillProcess)?;
    // Signals to itself are how a vCPU is got out of the guest, and how a panic ends.
    whole.insert(
        libc::SYS_tgkill,
        vec![rule(&[(0, Len::Dword, Op::Eq, u64::from(std::process::id()))])?],
    );
    let whole = allow(whole)?;
    let Ok(programs) = programs.try_into() else {
        return Err(ConfineError::Filter("a kind of thread has no list".into()));
    };
    for program in [&deadly, &refused, &whole] {
        apply_filter(program).map_err(|error| ConfineError::Os {
            operation: "put a list of system calls in force",
            source: std::io::Error::other(error.to_string()),
        })?;
    }
    // Armed once; a second time changes nothing.
    let _ = ARMED.set(programs);
    Ok(Layer::whole(
        "seccomp",
        format!("a list for the process and for {} kinds of thread", KINDS.len()),
    ))
}

/// Puts the list for a kind of thread in force for this one, if the process is armed. In a process that is not, such as
/// a test's, nothing happens.
pub fn enter(kind: Thread) {
    let Some(programs) = ARMED.get() else { return };
    let at = KINDS.iter().position(|known| *known == kind).unwrap_or(0);
    if let Err(error) = apply_filter(&programs[at]) {
        tracing::error!(%error, ?kind, "a thread cannot be confined, and must not run as it is");
        std::process::abort();
    }
}

/// What any thread of the process may do.
fn process() -> Result<Rules, ConfineError> {
    let mut rules = life()?;
    add(&mut rules, DISK);
    add(&mut rules, CONNECTIONS);
    add(&mut rules, FILES);
    add(&mut rules, CONTROL);
    sockets(&mut rules)?;
    threads(&mut rules)?;
    controls(&mut rules, &[kvm()?, of_sockets()?, of_files()?].concat());
    Ok(rules)
}

/// What a kind of thread may do.
fn thread(kind: Thread) -> Result<Rules, ConfineError> {
    let mut rules = life()?;
    match kind {
        Thread::Vcpu => controls(&mut rules, &of_vcpu()?),
        Thread::Entropy | Thread::Balloon => {}
        Thread::Disk => {
            add(&mut rules, DISK);
            // It starts the thread that enters its ring, each time that there is something to do.
            starting(&mut rules)?;
        }
        Thread::Connections => {
            add(&mut rules, CONNECTIONS);
            sockets(&mut rules)?;
            controls(&mut rules, &of_sockets()?);
            // It removes its socket at its end.
            add(&mut rules, &[libc::SYS_unlinkat]);
            #[cfg(target_arch = "x86_64")]
            add(&mut rules, &[libc::SYS_unlink]);
        }
        Thread::Files => {
            add(&mut rules, FILES);
            controls(&mut rules, &of_files()?);
            // One of them starts the thread that waits for locks.
            starting(&mut rules)?;
        }
    }
    Ok(rules)
}

fn life() -> Result<Rules, ConfineError> {
    let mut rules = Rules::new();
    add(&mut rules, LIFE);
    // Memory, as long as it does not become a program.
    let not_executable = [(2, Len::Dword, Op::MaskedEq(libc::PROT_EXEC as u64), 0)];
    for call in [libc::SYS_mmap, libc::SYS_mprotect] {
        rules.insert(call, vec![rule(&not_executable)?]);
    }
    // A thread's name, that of a piece of memory, and what comes before a list is put in force.
    let prctl = [libc::PR_SET_NAME, libc::PR_SET_VMA, libc::PR_SET_NO_NEW_PRIVS];
    let prctl: Result<_, _> = prctl
        .into_iter()
        .map(|what| rule(&[(0, Len::Dword, Op::Eq, number(what))]))
        .collect();
    rules.insert(libc::SYS_prctl, prctl?);
    rules.insert(
        libc::SYS_tgkill,
        vec![rule(&[(0, Len::Dword, Op::Eq, u64::from(std::process::id()))])?],
    );
    Ok(rules)
}

/// Unix sockets, and no others.
fn sockets(rules: &mut Rules) -> Result<(), ConfineError> {
    for call in [libc::SYS_socket, libc::SYS_socketpair] {
        rules.insert(
            call,
            vec![rule(&[(0, Len::Dword, Op::Eq, number(libc::AF_UNIX))])?],
        );
    }
    Ok(())
}

/// Threads, and no processes.
fn threads(rules: &mut Rules) -> Result<(), ConfineError> {
    let thread = number(libc::CLONE_THREAD);
    rules.insert(
        libc::SYS_clone,
        vec![rule(&[(0, Len::Qword, Op::MaskedEq(thread), thread)])?],
    );
    Ok(())
}

/// What a thread that starts others calls: `clone3` first, which the list that refuses it answers.
fn starting(rules: &mut Rules) -> Result<(), ConfineError> {
    add(rules, &[libc::SYS_clone3]);
    threads(rules)
}

fn controls(rules: &mut Rules, controls: &[SeccompRule]) {
    rules.insert(libc::SYS_ioctl, controls.to_vec());
}

/// The controls of KVM, all of which have this type (`KVMIO`).
fn kvm() -> Result<Vec<SeccompRule>, ConfineError> {
    const TYPE: u64 = 0xff00;
    const KVMIO: u64 = 0xae00;
    Ok(vec![rule(&[(1, Len::Dword, Op::MaskedEq(TYPE), KVMIO)])?])
}

/// What a vCPU's thread asks of KVM, as it is numbered on x86-64, where there are such threads: to enter the guest, to
/// tell its clock of a pause, and of a failure the registers and what was being delivered.
fn of_vcpu() -> Result<Vec<SeccompRule>, ConfineError> {
    const KVM_RUN: u64 = 0xae80;
    const KVM_KVMCLOCK_CTRL: u64 = 0xaead;
    const KVM_GET_REGS: u64 = 0x8090_ae81;
    const KVM_GET_VCPU_EVENTS: u64 = 0x8040_ae9f;
    [KVM_RUN, KVM_KVMCLOCK_CTRL, KVM_GET_REGS, KVM_GET_VCPU_EVENTS]
        .into_iter()
        .map(|control| rule(&[(1, Len::Dword, Op::Eq, control)]))
        .collect()
}

/// The controls of sockets: whether to wait, and how much there is to read.
fn of_sockets() -> Result<Vec<SeccompRule>, ConfineError> {
    [libc::FIONBIO, libc::FIONREAD]
        .into_iter()
        .map(|control| rule(&[(1, Len::Dword, Op::Eq, control)]))
        .collect()
}

/// The control of files: the flags of one, which say whether a directory ignores the case of names.
fn of_files() -> Result<Vec<SeccompRule>, ConfineError> {
    Ok(vec![rule(&[(1, Len::Dword, Op::Eq, libc::FS_IOC_GETFLAGS)])?])
}

fn add(rules: &mut Rules, calls: &[c_long]) {
    rules.extend(calls.iter().map(|call| (*call, Vec::new())));
}

fn number(flag: libc::c_int) -> u64 {
    u64::from(flag.cast_unsigned())
}

fn rule(conditions: &[(u8, Len, Op, u64)]) -> Result<SeccompRule, ConfineError> {
    let conditions = conditions
        .iter()
        .map(|(argument, length, operator, value)| {
            SeccompCondition::new(*argument, length.clone(), operator.clone(), *value)
        })
        .collect::<Result<_, _>>()
        .map_err(filter)?;
    SeccompRule::new(conditions).map_err(filter)
}

fn allow(rules: Rules) -> Result<BpfProgram, ConfineError> {
    let denied = SeccompAction::Errno(libc::EPERM.cast_unsigned());
    compile(rules, denied, SeccompAction::Allow)
}

fn compile(
    rules: Rules,
    otherwise: SeccompAction,
    listed: SeccompAction,
) -> Result<BpfProgram, ConfineError> {
    let architecture = ARCH.try_into().map_err(filter)?;
    SeccompFilter::new(rules, otherwise, listed, architecture)
        .and_then(TryInto::try_into)
        .map_err(filter)
}

#[expect(clippy::needless_pass_by_value, reason = "for `map_err`")]
fn filter(error: seccompiler::BackendError) -> ConfineError {
    ConfineError::Filter(error.to_string())
}
