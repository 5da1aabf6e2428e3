//! The I/O ports: the serial console, power-off and reset. Everything else is an empty bus.

use std::io::Write;
use std::sync::{Mutex, PoisonError};

use vm_superio::Trigger;
use vm_superio::serial::{NoEvents, Serial};
use vmm_sys_util::eventfd::EventFd;

use crate::layout::{
    KEYBOARD_COMMAND_PORT, KEYBOARD_RESET, RESET_PORT, RESET_VALUE, SERIAL_PORT, SLEEP_CONTROL_PORT,
    SLEEP_STATUS_PORT, SLEEP_TYPE_OFF,
};
use crate::vm::End;

/// Registers of the serial port.
const SERIAL_REGISTERS: u16 = 8;
/// `SLP_EN` of the sleep control register.
const SLEEP_ENABLE: u8 = 1 << 5;

/// Where the serial port's output goes.
pub type Output = Box<dyn Write + Send>;

/// The I/O ports of a machine, shared by its vCPUs.
pub struct Ports {
    serial: Mutex<Serial<Line, NoEvents, Output>>,
}

/// The serial port's interrupt.
struct Line(EventFd);

impl Trigger for Line {
    type E = std::io::Error;

    fn trigger(&self) -> std::io::Result<()> {
        self.0.write(1)
    }
}

impl Ports {
    /// Ports whose serial line interrupts through `interrupt` and writes to `output`.
    pub fn new(interrupt: EventFd, output: Output) -> Self {
        Self {
            serial: Mutex::new(Serial::new(Line(interrupt), output)),
        }
    }

    /// What the guest reads at `port`.
    pub fn read(&self, port: u16, data: &mut [u8]) {
        // A keyboard controller that is never busy: the kernel waits for that before it resets through it.
        let idle = matches!(port, SLEEP_STATUS_PORT | KEYBOARD_COMMAND_PORT);
        data.fill(if idle { 0 } else { 0xff });
        if let (Some(register), [byte]) = (serial_register(port), data) {
            *byte = self.serial().read(register);
        }
    }

    /// Takes what the guest writes at `port`; tells when that ends the machine.
    pub fn write(&self, port: u16, data: &[u8]) -> Option<End> {
        let [byte] = *data else {
            return None;
        };
        if let Some(register) = serial_register(port) {
            if let Err(error) = self.serial().write(register, byte) {
                tracing::debug!(%error, "a byte of the console is lost");
            }
            return None;
        }
        match port {
            RESET_PORT if byte == RESET_VALUE => Some(End::Reset),
            KEYBOARD_COMMAND_PORT if byte == KEYBOARD_RESET => Some(End::Reset),
            SLEEP_CONTROL_PORT if byte & SLEEP_ENABLE != 0 && byte >> 2 & 7 == SLEEP_TYPE_OFF => {
                Some(End::PoweredOff)
            }
            _ => None,
        }
    }

    fn serial(&self) -> std::sync::MutexGuard<'_, Serial<Line, NoEvents, Output>> {
        // A panic of another vCPU's thread leaves at worst half a line.
        self.serial.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn serial_register(port: u16) -> Option<u8> {
    let register = port
        .checked_sub(SERIAL_PORT)
        .filter(|at| *at < SERIAL_REGISTERS)?;
    u8::try_from(register).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ports() -> Ports {
        Ports::new(EventFd::new(0).unwrap(), Box::new(Vec::new()))
    }

    #[test]
    fn only_the_right_value_ends_the_machine() {
        let ports = ports();
        assert_eq!(ports.write(RESET_PORT, &[0]), None);
        assert_eq!(ports.write(RESET_PORT, &[RESET_VALUE]), Some(End::Reset));
        assert_eq!(ports.write(SLEEP_CONTROL_PORT, &[SLEEP_ENABLE]), None);
        let off = SLEEP_ENABLE | SLEEP_TYPE_OFF << 2;
        assert_eq!(ports.write(SLEEP_CONTROL_PORT, &[off]), Some(End::PoweredOff));
    }

    #[test]
    fn any_access_of_any_width_at_any_port_is_survived() {
        let ports = ports();
        for port in 0..=u16::MAX {
            for width in [0, 1, 2, 4, 8, 64] {
                let mut data = vec![0; width];
                ports.read(port, &mut data);
                ports.write(port, &data);
            }
        }
    }
}
