//! The monitor on a processor that it was not made for. [`super::probe`] keeps machines from being started there.

use super::Shared;
use crate::{
    Exit, MachineError, MachineSpec,
    process::{console::Console, control::Audience, hypervisor::Input},
};
use std::io;

/// There is none.
pub(crate) enum Monitor {}

impl Monitor {
    pub(crate) fn new(_: &MachineSpec, _: Shared, _: Console) -> Result<Self, MachineError> {
        Err(MachineError::StartFailed {
            why: "the monitor for KVM is for x86-64 only".into(),
        })
    }

    pub(crate) fn begin(&mut self) -> Result<(), MachineError> {
        match *self {}
    }

    pub(crate) async fn supervise(self, _: Input, _: Audience) -> io::Result<Exit> {
        match self {}
    }
}
