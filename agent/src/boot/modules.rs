//! Loading kernel modules, several at a time, each as soon as those that it needs are loaded.

use std::{
    collections::BTreeMap,
    fs::File,
    io,
    num::NonZero,
    path::PathBuf,
    sync::{Condvar, Mutex, MutexGuard, PoisonError},
    thread,
};
use tokio::sync::watch;

/// The list that the image's builder made: a line `name path dependency…` for each module, in the order in which
/// they are wanted.
const LIST: &str = "/modules/modules.load";

/// A module, and those that have to be loaded before it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Module {
    pub(super) name: String,
    pub(super) path: PathBuf,
    pub(super) needs: Vec<String>,
}

/// Why a module is not there.
#[derive(Debug, Clone, thiserror::Error)]
pub(super) enum LoadError {
    #[error("loading the kernel module {name} failed: {reason}")]
    Refused { name: String, reason: String },
    #[error("the kernel module {name} was not loaded because {needs} is missing")]
    Needs { name: String, needs: String },
}

/// The modules being loaded; clones share them.
#[derive(Clone)]
pub(crate) struct Modules(watch::Receiver<Outcomes>);

/// What has become of each module in the list; nothing while it is still to be loaded.
type Outcomes = BTreeMap<String, Option<Result<(), LoadError>>>;

impl Modules {
    /// Starts loading all modules in the list, on threads of their own. `finished` gets what went wrong when all
    /// are done.
    pub(crate) fn load(finished: impl FnOnce(Vec<String>) + Send + 'static) -> io::Result<Self> {
        let list = parse(&std::fs::read_to_string(LIST)?);
        // Opened now, because the step into the root takes the paths away before everything is loaded.
        let files: BTreeMap<String, io::Result<File>> = list
            .iter()
            .map(|module| (module.name.clone(), File::open(&module.path)))
            .collect();
        let outcomes: Outcomes = list.iter().map(|module| (module.name.clone(), None)).collect();
        let (sender, receiver) = watch::channel(outcomes);
        thread::Builder::new().name("modules".into()).spawn(move || {
            let insert = |module: &Module| match files.get(&module.name) {
                Some(Ok(file)) => insert(file),
                Some(Err(error)) => Err(error.kind().into()),
                None => Err(io::ErrorKind::NotFound.into()),
            };
            load_all(list, insert, |name, outcome| {
                sender.send_modify(|outcomes| {
                    outcomes.insert(name.to_owned(), Some(outcome));
                });
            });
            let outcomes = sender.borrow();
            let failed = outcomes
                .values()
                .flatten()
                .filter_map(|outcome| outcome.as_ref().err());
            finished(failed.map(ToString::to_string).collect());
        })?;
        Ok(Self(receiver))
    }

    /// Returns when none of `names` is still to be loaded. One that failed, or that is not in the list because the
    /// kernel has it built in, is not waited for: what needs it will say best what is missing.
    pub(crate) async fn settled(&self, names: &[&str]) {
        let is_settled = |outcomes: &Outcomes, name: &&str| !matches!(outcomes.get(*name), Some(None));
        self.wait_for(|outcomes| names.iter().all(|name| is_settled(outcomes, name)))
            .await;
    }

    /// Returns when nothing is still to be loaded.
    pub(crate) async fn all_settled(&self) {
        self.wait_for(|outcomes| outcomes.values().all(Option::is_some))
            .await;
    }

    async fn wait_for(&self, settled: impl FnMut(&Outcomes) -> bool) {
        // The sender goes when everything is settled.
        let _ = self.0.clone().wait_for(settled).await;
    }
}

fn parse(list: &str) -> Vec<Module> {
    let module = |line: &str| {
        let mut words = line.split_ascii_whitespace().map(str::to_owned);
        Some(Module {
            name: words.next().filter(|name| !name.starts_with('#'))?,
            path: words.next()?.into(),
            needs: words.collect(),
        })
    };
    list.lines().filter_map(module).collect()
}

/// Has the kernel take the module in `module`.
pub(super) fn insert(module: &File) -> io::Result<()> {
    match rustix::system::finit_module(module, c"", 0) {
        // Loaded already, for instance by the kernel itself.
        Ok(()) | Err(rustix::io::Errno::EXIST) => Ok(()),
        Err(error) => Err(error.into()),
    }
}

/// How far a module is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum State {
    Waiting,
    Loading,
    There,
    Missing,
}

/// The list, and how far each module is.
struct Work(Vec<(Module, State)>);

/// What a worker is to do next; a number is a module's place in the list.
#[derive(Debug, PartialEq, Eq)]
enum Next {
    Load(usize),
    /// It can never be loaded, for lack of the named one.
    GiveUp(usize, String),
    Wait,
    Finished,
}

impl Work {
    /// The first module in the list's order that can be dealt with now.
    fn next(&self) -> Next {
        let waiting = || (0..self.0.len()).filter(|&at| self.0[at].1 == State::Waiting);
        for at in waiting() {
            let needs = &self.0[at].0.needs;
            if let Some(name) = needs.iter().find(|name| self.state(name) == State::Missing) {
                return Next::GiveUp(at, name.clone());
            }
            if needs.iter().all(|name| self.state(name) == State::There) {
                return Next::Load(at);
            }
        }
        if self.0.iter().any(|(_, state)| *state == State::Loading) {
            return Next::Wait;
        }
        // Nothing is being loaded and nothing can be: those that are left need each other.
        match waiting().next() {
            Some(at) => Next::GiveUp(at, self.0[at].0.needs.join(", ")),
            None => Next::Finished,
        }
    }

    /// How far the module `name` is. One that is not in the list is built into the kernel.
    fn state(&self, name: &str) -> State {
        let found = self.0.iter().find(|(module, _)| module.name == name);
        found.map_or(State::There, |(_, state)| *state)
    }
}

/// Loads `list` with `load`, as many at a time as there are processors, and tells `settle` about each module.
pub(super) fn load_all(
    list: Vec<Module>,
    load: impl Fn(&Module) -> io::Result<()> + Sync,
    settle: impl Fn(&str, Result<(), LoadError>) + Sync,
) {
    let work = Mutex::new(Work(
        list.into_iter().map(|module| (module, State::Waiting)).collect(),
    ));
    let changed = Condvar::new();
    let worker = || {
        let mut held = lock(&work);
        loop {
            let (at, outcome) = match held.next() {
                Next::Finished => return,
                Next::Wait => {
                    held = changed.wait(held).unwrap_or_else(PoisonError::into_inner);
                    continue;
                }
                Next::GiveUp(at, needs) => {
                    let name = held.0[at].0.name.clone();
                    (at, Err(LoadError::Needs { name, needs }))
                }
                Next::Load(at) => {
                    held.0[at].1 = State::Loading;
                    let module = held.0[at].0.clone();
                    drop(held);
                    let outcome = load(&module).map_err(|error| LoadError::Refused {
                        name: module.name,
                        reason: error.to_string(),
                    });
                    held = lock(&work);
                    (at, outcome)
                }
            };
            held.0[at].1 = if outcome.is_ok() {
                State::There
            } else {
                State::Missing
            };
            settle(&held.0[at].0.name, outcome);
            changed.notify_all();
        }
    };
    let workers = thread::available_parallelism().map_or(1, NonZero::get);
    thread::scope(|scope| {
        for _ in 1..workers {
            scope.spawn(worker);
        }
        worker();
    });
}

fn lock(work: &Mutex<Work>) -> MutexGuard<'_, Work> {
    work.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    /// Loads `list`; those in `broken` fail. Gives the order of the loads, and the errors.
    fn run(list: &str, broken: &[&str]) -> (Vec<String>, Vec<String>) {
        let order = Mutex::new(Vec::new());
        let errors = Mutex::new(Vec::new());
        load_all(
            parse(list),
            |module| {
                order.lock().unwrap().push(module.name.clone());
                if broken.contains(&module.name.as_str()) {
                    return Err(io::ErrorKind::InvalidData.into());
                }
                Ok(())
            },
            |_, outcome| {
                if let Err(error) = outcome {
                    errors.lock().unwrap().push(error.to_string());
                }
            },
        );
        (order.into_inner().unwrap(), errors.into_inner().unwrap())
    }

    #[test]
    fn a_module_is_loaded_after_those_that_it_needs() {
        let (order, errors) = run("ext4 /e jbd2 crc16\ncrc16 /c\njbd2 /j builtin\n", &[]);
        assert_eq!(order.len(), 3);
        assert_eq!(order[2], "ext4");
        assert!(errors.is_empty());
    }

    #[test]
    fn what_needs_a_broken_module_is_given_up_and_the_rest_is_loaded() {
        let (mut order, errors) = run("a /a\nb /b a\nc /c b\nd /d\n", &["a"]);
        order.sort();
        assert_eq!(order, ["a", "d"]);
        assert_eq!(errors.len(), 3);
        assert!(
            errors[2].contains("kernel module c") && errors[2].contains("b is missing"),
            "{errors:?}"
        );
    }

    #[test]
    fn modules_that_need_each_other_do_not_hang_the_boot() {
        let (order, errors) = run("a /a b\nb /b a\nc /c\n", &[]);
        assert_eq!(order, ["c"]);
        assert_eq!(errors.len(), 2);
    }

    #[test]
    fn comments_and_lines_without_a_path_are_skipped() {
        assert_eq!(parse("# list\n\nlonely\nvsock /modules/vsock.ko\n").len(), 1);
    }

    #[test]
    fn the_lists_order_is_kept_where_nothing_forbids_it() {
        let work = Work(
            parse("x /x y\nv /v\ny /y")
                .into_iter()
                .map(|module| (module, State::Waiting))
                .collect(),
        );
        assert_eq!(work.next(), Next::Load(1));
    }

    proptest! {
        #[test]
        fn every_module_of_any_graph_is_settled_once(
            needs in proptest::collection::vec(proptest::collection::vec(0_usize..12, 0..3), 1..12),
        ) {
            let line = |(at, needs): (usize, &Vec<usize>)| {
                let needs: Vec<String> = needs.iter().map(|need| format!("m{need}")).collect();
                format!("m{at} /m {}", needs.join(" "))
            };
            let list: Vec<String> = needs.iter().enumerate().map(line).collect();
            let (order, errors) = run(&list.join("\n"), &[]);
            prop_assert_eq!(order.len() + errors.len(), needs.len());
            for (at, name) in order.iter().enumerate() {
                let own: usize = name[1..].parse().unwrap();
                for need in needs[own].iter().filter(|need| **need < needs.len()) {
                    let needed = format!("m{need}");
                    prop_assert!(order[..at].contains(&needed));
                }
            }
        }
    }
}
