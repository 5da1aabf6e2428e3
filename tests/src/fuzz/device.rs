//! An input of a target that is a device.

use anyhow::Result;

use super::driver::Driver;
use super::input::Input;
use super::script::{MOST_STEPS, Mode, Step};
use super::subject::Subject;
use super::watch::watched;
use crate::driver::kind::Kind;

/// Plays the script that `input` is to a device of that kind. Afterwards it must take a reset, must have written to
/// what it was offered alone, and must answer a good driver.
pub(super) fn fuzz(target: &'static str, kind: Kind, input: &[u8]) {
    watched(target, input, || play(kind, input));
}

fn play(kind: Kind, input: &[u8]) -> Result<()> {
    let mut input = Input::new(input);
    let Some(mode) = input.byte().map(Mode::of) else {
        return Ok(());
    };
    let (mut subject, device) = Subject::new(kind, mode)?;
    let mut driver = Driver::new(device, mode)?;
    for _ in 0..MOST_STEPS {
        let Some(step) = Step::parse(&mut input) else {
            break;
        };
        driver.play(&step, &mut subject)?;
    }
    driver.finish()?;
    subject.check(&driver.memory()?)?;
    driver.prove_alive(&kind.request())
}
