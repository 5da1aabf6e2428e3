//! Programs that ask much of a folder: postgres and MariaDB with their data there, and vite, which rebuilds what
//! changes on the host.
//!
//! They run from directories that `cargo xtask test --all` fetches, shared for reading, so their very code is mapped
//! from a folder, too.

use crate::at_home;
use cove_tests::harness::{Cmd, Cove, eventually, within};
use std::{
    env, fs,
    path::{Path, PathBuf},
    time::Duration,
};

/// What takes a database or a JavaScript program long in an emulated machine.
const LONG: Duration = Duration::from_mins(5);

/// The directory that a variable names, shared for as long as this lives.
struct Fixture<'a> {
    cove: &'a Cove,
    place: PathBuf,
}

impl<'a> Fixture<'a> {
    fn share(cove: &'a Cove, variable: &str) -> Self {
        let place = PathBuf::from(env::var_os(variable).unwrap());
        cove.cove(["share", "add", "--read-only", place.to_str().unwrap()])
            .ok();
        Self { cove, place }
    }

    /// `docker run` of alpine with parts of the fixture at the same places in the container.
    fn run(&self, options: &[&str], parts: &[&str], binds: &[String], script: &str) -> Cmd {
        let bind_of = |part: &&str| format!("{}:/{part}:ro", self.place.join(part).display());
        let binds = parts.iter().map(bind_of).chain(binds.iter().cloned());
        let binds = binds.flat_map(|bind| ["-v".to_owned(), bind]);
        let run = ["run", "--init"].iter().chain(options).map(ToString::to_string);
        let command = ["alpine", "sh", "-c", script].map(ToString::to_string);
        let words: Vec<_> = run.chain(binds).chain(command).collect();
        self.cove.docker(words).limit(LONG)
    }
}

impl Drop for Fixture<'_> {
    fn drop(&mut self) {
        let path = self.place.to_str().unwrap_or_default();
        self.cove.cove(["share", "remove", "--force", path]).run();
    }
}

const LIBRARIES: [&str; 2] = ["lib64", "usr/lib/x86_64-linux-gnu"];
const POSTGRES: [&str; 4] = [
    "usr/lib/postgresql",
    "usr/share/postgresql",
    LIBRARIES[0],
    LIBRARIES[1],
];
/// As the images do it: the entry point is root, the server is not.
const USER: &str = "set -e; export PATH=$PATH:/usr/lib/postgresql/17/bin
    id postgres >/dev/null 2>&1 || adduser -D -H -u 70 postgres; ";

pub(crate) fn postgres_keeps_what_it_committed_in_a_folder_through_restart_and_crash(cove: &Cove) {
    let fixture = Fixture::share(cove, "COVE_TEST_POSTGRES");
    let data = at_home(cove, "postgres");
    let counted = at_home(cove, "counted");
    let binds = [
        format!("{}:/data", data.display()),
        format!("{}:/counted", counted.display()),
    ];
    let initialise = format!(
        "{USER} chown postgres:postgres /data; chmod 700 /data
        su postgres -c \"PATH=$PATH initdb -D /data --no-locale -E UTF8 -A trust\""
    );
    let made = fixture.run(&["--rm"], &POSTGRES, &binds, &initialise).ok();
    assert!(made.contains("Success. You can now start"), "{made}");

    let serve = format!(
        "{USER} exec su postgres -c \"exec /usr/lib/postgresql/17/bin/postgres -D /data -k /tmp \
         -c listen_addresses= -c shared_buffers=32MB\" 2>>/counted/log"
    );
    fixture
        .run(&["-d", "--name", "postgres"], &POSTGRES, &binds, &serve)
        .ok();
    answers(cove);
    let bench = "/usr/lib/postgresql/17/bin/pgbench -h /tmp -U postgres";
    inside(cove, &format!("{bench} -i -q -s 1 postgres"))
        .limit(LONG)
        .ok();
    let ran = inside(cove, &format!("{bench} -c 2 -t 20 postgres"))
        .limit(LONG)
        .ok();
    assert!(ran.contains("actually processed: 40/40"), "{ran}");
    assert_eq!(ask(cove, "select count(*) from pgbench_history"), "40");

    cove.docker(["restart", "-t", "60", "postgres"]).limit(LONG).ok();
    answers(cove);
    assert_eq!(ask(cove, "select count(*) from pgbench_history"), "40");

    // Under load, numbers are counted on the host after each is committed; then the machine dies.
    ask(cove, "create table log (n int primary key)");
    // Without -n it would begin by emptying the history.
    let load = format!("{bench} -n -c 2 -T 600 postgres >/dev/null 2>&1");
    cove.docker(["exec", "-d", "postgres", "sh", "-c", &load]).ok();
    let count = "n=0; while :; do n=$((n + 1)); echo \"insert into log values ($n);\"; \
         echo '\\! mkdir /counted/'$n; done | \
         /usr/lib/postgresql/17/bin/psql -q -v ON_ERROR_STOP=1 -h /tmp -U postgres postgres";
    cove.docker(["exec", "-d", "postgres", "sh", "-c", count]).ok();
    within(LONG, "some numbers to be committed", || {
        (last(&counted) >= 20).then_some(())
    });
    for pid in cove.machine_processes() {
        Cove::kill(pid);
    }
    eventually("the machine to be known as failed", || cove.state() == "failed");
    let committed = last(&counted);

    cove.start();
    cove.docker(["start", "postgres"]).ok();
    answers(cove);
    // Not asked of the engine, whose own logs need not survive such an end.
    let log = fs::read_to_string(counted.join("log")).unwrap();
    assert!(log.contains("not properly shut down"), "{log}");
    let kept = ask(cove, &format!("select count(*) from log where n <= {committed}"));
    assert_eq!(kept, committed.to_string(), "what was committed is gone");
    // Every transaction adds one number to an account, a teller, a branch and the history.
    let sums = "select (select sum(abalance) from pgbench_accounts), (select sum(tbalance) from pgbench_tellers), \
                (select sum(bbalance) from pgbench_branches), (select sum(delta) from pgbench_history)";
    let sums = ask(cove, sums);
    let mut each = sums.split('|');
    let first = each.next();
    assert!(
        each.all(|sum| Some(sum) == first),
        "half a transaction is there: {sums}"
    );
    cove.docker(["rm", "-f", "postgres"]).ok();
}

/// A command in the server's container.
fn inside(cove: &Cove, command: &str) -> Cmd {
    cove.docker(["exec", "postgres", "sh", "-c", command])
}

fn ask(cove: &Cove, query: &str) -> String {
    let psql = "/usr/lib/postgresql/17/bin/psql";
    let words = [
        "exec", "postgres", psql, "-h", "/tmp", "-U", "postgres", "-tAqc", query, "postgres",
    ];
    cove.docker(words).ok()
}

fn answers(cove: &Cove) {
    within(LONG, "postgres to answer", || {
        let words = [
            "exec",
            "postgres",
            "/usr/lib/postgresql/17/bin/psql",
            "-h",
            "/tmp",
        ];
        let asked = cove.docker(words.into_iter().chain(["-U", "postgres", "-c", "select 1"]));
        (asked.run().code == Some(0)).then_some(())
    });
}

/// The highest number of which there is a directory.
fn last(counted: &Path) -> u64 {
    let names = fs::read_dir(counted).unwrap();
    names
        .filter_map(|entry| entry.unwrap().file_name().to_str()?.parse().ok())
        .max()
        .unwrap_or(0)
}

const MARIADB: [&str; 7] = [
    "usr/sbin/mariadbd",
    "usr/bin/mariadb",
    "usr/bin/mariadb-install-db",
    "usr/bin/my_print_defaults",
    "usr/share/mariadb",
    LIBRARIES[0],
    LIBRARIES[1],
];
/// As with postgres.
const MYSQL: &str = "set -e; id mysql >/dev/null 2>&1 || adduser -D -H -u 3306 mysql; ";
const SOCKET: &str = "--socket=/tmp/mariadb.sock";

pub(crate) fn mariadb_keeps_what_it_committed_in_a_folder_when_its_container_is_killed(cove: &Cove) {
    let fixture = Fixture::share(cove, "COVE_TEST_MARIADB");
    let data = at_home(cove, "mariadb");
    let counted = at_home(cove, "mariadb-counted");
    let binds = [
        format!("{}:/data", data.display()),
        format!("{}:/counted", counted.display()),
    ];
    // Forced, as it would look up the container's name by a program that is not there.
    let initialise = format!(
        "{MYSQL} chown mysql /data; chmod 700 /data
        su mysql -c 'mariadb-install-db --no-defaults --force --basedir=/usr --datadir=/data --skip-test-db \
        --auth-root-authentication-method=normal' 2>&1
        stat -c %U /data /data/ibdata1"
    );
    let made = fixture.run(&["--rm"], &MARIADB, &binds, &initialise).ok();
    assert!(made.ends_with("mysql\nmysql"), "{made}");

    let serve = format!(
        "{MYSQL} exec su mysql -c 'exec /usr/sbin/mariadbd --no-defaults --basedir=/usr --datadir=/data {SOCKET} \
         --pid-file=/tmp/mariadb.pid --lc-messages-dir=/usr/share/mariadb --skip-networking \
         --innodb-buffer-pool-size=32M' 2>>/counted/log"
    );
    fixture
        .run(&["-d", "--name", "mariadb"], &MARIADB, &binds, &serve)
        .ok();
    mariadb_answers(cove);
    mariadb(
        cove,
        "create database test; create table test.log (n int primary key)",
    )
    .ok();

    // Numbers are counted on the host after each is committed; then the server dies, and its client with it.
    let count = format!(
        "n=0; while :; do n=$((n + 1)); echo \"insert into log values ($n);\"; \
         echo '\\! mkdir /counted/'$n; done | mariadb --no-defaults {SOCKET} --user=root test"
    );
    cove.docker(["exec", "-d", "mariadb", "sh", "-c", &count]).ok();
    within(LONG, "some numbers to be committed", || {
        (last(&counted) >= 20).then_some(())
    });
    let log = || fs::read_to_string(counted.join("log")).unwrap();
    let before = log();
    cove.docker(["kill", "--signal", "KILL", "mariadb"]).ok();
    cove.docker(["wait", "mariadb"]).limit(LONG).ok();
    let committed = last(&counted);

    cove.docker(["start", "mariadb"]).ok();
    mariadb_answers(cove);
    let log = log();
    let since = log.strip_prefix(&before).unwrap();
    assert!(since.contains("Starting crash recovery"), "{log}");
    let kept = mariadb(
        cove,
        &format!("select count(*) from test.log where n <= {committed}"),
    )
    .ok();
    assert_eq!(kept, committed.to_string(), "what was committed is gone");
    let checked = mariadb(cove, "check table test.log extended").ok();
    assert_eq!(checked, "test.log\tcheck\tstatus\tOK");
    cove.docker(["rm", "-f", "mariadb"]).ok();
}

/// MariaDB's client in the server's container, and what it is to say.
fn mariadb(cove: &Cove, statement: &str) -> Cmd {
    let client = [
        "exec",
        "mariadb",
        "mariadb",
        "--no-defaults",
        SOCKET,
        "--user=root",
    ];
    cove.docker(client)
        .args(["--skip-column-names", "--execute", statement])
        .limit(LONG)
}

fn mariadb_answers(cove: &Cove) {
    within(LONG, "MariaDB to answer", || {
        (mariadb(cove, "select 1").run().code == Some(0)).then_some(())
    });
}

/// Vite's server, whose watcher is the one that its users have; what it would serve is evaluated after each event.
const DEV: &str = r"
import { createServer } from 'vite';
const server = await createServer({
    root: '/site', configFile: false, cacheDir: '/tmp/vite', logLevel: 'error', appType: 'custom',
    server: { middlewareMode: true, ws: false }, optimizeDeps: { noDiscovery: true },
});
const show = async () => {
    try {
        const built = await server.ssrLoadModule('/main.js');
        console.log('built', built.default);
    } catch (error) {
        console.log('failed', error.message);
    }
};
let soon;
server.watcher.on('all', (event, path) => {
    console.log('event', event, path);
    clearTimeout(soon);
    soon = setTimeout(show, 200);
});
// The watcher may have been ready before anybody could ask it to say so.
const began = setInterval(() => {
    if (server.watcher.getWatched()['/site/words']?.includes('a.js')) {
        clearInterval(began);
        setTimeout(show, 1000);
    }
}, 100);
";

const MAIN: &str = "const words = import.meta.glob('./words/*.js', { eager: true, import: 'default' });
export default Object.values(words).join(' ');
";

pub(crate) fn vite_rebuilds_when_files_are_edited_created_renamed_or_deleted_on_the_host(cove: &Cove) {
    let fixture = Fixture::share(cove, "COVE_TEST_VITE");
    let site = at_home(cove, "site");
    let words = site.join("words");
    fs::create_dir_all(&words).unwrap();
    // Found by node above the project, and so never in what is watched.
    let modules = fixture.place.join("project/node_modules");
    let binds = [
        format!("{}:/site", site.display()),
        format!("{}:/node_modules:ro", modules.display()),
    ];
    let write = |name: &str, word: &str| {
        fs::write(words.join(name), format!("export default '{word}';\n")).unwrap();
    };
    fs::write(site.join("dev.mjs"), DEV).unwrap();
    fs::write(site.join("main.js"), MAIN).unwrap();
    write("a.js", "one");
    let parts = ["usr/bin/node", "usr/bin/ldd", LIBRARIES[0], LIBRARIES[1]];
    fixture
        .run(
            &["-d", "--name", "vite"],
            &parts,
            &binds,
            "cd /site && exec node dev.mjs",
        )
        .ok();
    let expect = |what: &str, built: &str| {
        let line = format!("built {built}");
        within(LONG, &format!("{what}: `{line}`"), || {
            let log = cove.docker(["logs", "vite"]).run();
            assert!(!log.stderr.contains("Error"), "{log}");
            let last = log
                .text()
                .lines()
                .rfind(|line| line.starts_with("built"))
                .map(str::to_owned);
            (last.as_deref() == Some(line.as_str())).then_some(())
        });
    };
    expect("the start", "one");
    write("a.js", "two");
    expect("an edit", "two");
    // As editors save. Vite watches the old file itself.
    write(".saved", "three");
    fs::rename(words.join(".saved"), words.join("a.js")).unwrap();
    expect("a replacement", "three");
    write("b.js", "more");
    expect("a new file", "three more");
    fs::rename(words.join("b.js"), words.join("0.js")).unwrap();
    expect("a rename", "more three");
    fs::remove_file(words.join("a.js")).unwrap();
    expect("a removal", "more");
    fs::create_dir(site.join("other")).unwrap();
    fs::rename(words.join("0.js"), site.join("other/0.js")).unwrap();
    expect("a move out of the directory", "");
    cove.docker(["rm", "-f", "vite"]).ok();
}
