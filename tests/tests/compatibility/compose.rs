//! Compose projects, shaped as people have them, of the one image that is there without a registry.

use crate::{Shared, docker};
use cove_tests::harness::{Cmd, Cove, Running, eventually, free_port, within, within_telling};
use std::{
    collections::BTreeSet,
    env, fs,
    io::{Read as _, Write as _},
    net::{Ipv4Addr, TcpStream},
    path::{Path, PathBuf},
    thread::sleep,
    time::Duration,
};

const LIMIT: Duration = Duration::from_mins(6);

/// A project directory; what it brought up is taken down in the end.
struct Project<'a> {
    cove: &'a Cove,
    directory: PathBuf,
}

impl<'a> Project<'a> {
    fn new(cove: &'a Cove, name: &str, files: &[(&str, &str)]) -> Self {
        let directory = cove.scratch().join(name);
        fs::create_dir_all(&directory).unwrap();
        for (file, text) in files {
            fs::write(directory.join(file), text).unwrap();
        }
        Self { cove, directory }
    }

    fn compose(&self, line: &str) -> Cmd {
        docker(self.cove, "compose")
            .args(line.split(' '))
            .directory(&self.directory)
            .limit(LIMIT)
    }
}

impl Drop for Project<'_> {
    fn drop(&mut self) {
        self.compose("--profile * down --volumes --timeout 0 --remove-orphans")
            .run();
    }
}

/// What an HTTP server on this computer's loopback answers to `GET /` when nothing is wrong.
fn fetch(port: u16) -> Option<String> {
    let mut stream = TcpStream::connect((Ipv4Addr::LOCALHOST, port)).ok()?;
    stream.write_all(b"GET / HTTP/1.0\r\n\r\n").ok()?;
    let mut answer = String::new();
    stream.read_to_string(&mut answer).ok()?;
    let (head, body) = answer.split_once("\r\n\r\n")?;
    let status = head.split(' ').nth(1)?;
    (status == "200").then(|| body.trim().to_owned())
}

/// The programs that a variable names, which `cargo xtask test --all` fetches. They are mounted, as the images that
/// people have them from cannot be had here.
fn programs<'a>(cove: &'a Cove, variable: &str) -> Shared<'a> {
    Shared::new(cove, env::var_os(variable).unwrap().into())
}

/// Parts of such programs, and their libraries, as volumes at the same places in a container.
fn mounts(programs: &Path, parts: &[&str]) -> String {
    let libraries = ["lib64", "usr/lib/x86_64-linux-gnu"];
    let mounts: Vec<String> = parts
        .iter()
        .chain(&libraries)
        .map(|part| format!("\"{}:/{part}:ro\"", programs.join(part).display()))
        .collect();
    mounts.join(", ")
}

/// The database and the cache are stand-ins that serve a line each: this is about what compose does with three
/// services.
pub(crate) fn a_web_application_with_its_database_and_cache(cove: &Cove) {
    let port = free_port();
    let compose = format!(
        r#"
services:
  web:
    image: alpine
    ports: ["127.0.0.1:{port}:80"]
    depends_on:
      database: {{condition: service_healthy}}
      cache: {{condition: service_started}}
    command:
      - sh
      - -c
      - |
        while :; do
          body="$$(nc database 5432 < /dev/null) and $$(nc cache 6379 < /dev/null)"
          printf 'HTTP/1.0 200 OK\r\n\r\n%s\n' "$$body" | nc -l -p 80
        done
  database:
    image: alpine
    volumes: ["rows:/rows"]
    command: sh -c 'echo row >> /rows/table; nc -lk -p 5432 -e cat /rows/table'
    healthcheck: {{test: "nc -z localhost 5432", interval: 500ms, retries: 60}}
  cache:
    image: alpine
    command: nc -lk -p 6379 -e echo cached
volumes:
  rows: {{}}
"#
    );
    let project = Project::new(cove, "shop", &[("compose.yaml", &compose)]);
    project.compose("up -d").ok();
    // The servers may listen a moment after their containers run.
    let page = |expected: &str| {
        within_telling(Duration::from_mins(1), || match fetch(port) {
            Some(page) if page == expected => Ok(()),
            other => Err(format!("the page `{expected}`, instead of {other:?}")),
        });
    };
    page("row and cached");
    // The data outlives the containers.
    project.compose("down --timeout 0").ok();
    project.compose("up -d").ok();
    page("row\nrow and cached");
}

/// Makes its data directory when there is none, and serves from it as a user of its own.
const POSTGRES: &str = r#"set -e
PATH=$PATH:/usr/lib/postgresql/17/bin
id postgres >/dev/null 2>&1 || adduser -D -H -u 70 postgres
chown postgres:postgres /rows
chmod 700 /rows
if ! test -e /rows/PG_VERSION; then
  su postgres -c "PATH=$PATH initdb -D /rows --no-locale -E UTF8 -A trust"
  echo 'host all all all trust' >>/rows/pg_hba.conf
fi
exec su postgres -c "exec /usr/lib/postgresql/17/bin/postgres -D /rows -k /tmp \
  -c listen_addresses='*' -c shared_buffers=32MB"
"#;

/// Asks the database.
const ASK: &str = r#"#!/bin/sh
for query; do set -- "$@" -c "$query"; shift; done
exec /usr/lib/postgresql/17/bin/psql -h database -U postgres -tAqv ON_ERROR_STOP=1 "$@" postgres
"#;

/// Asks the cache. Its client has another directory than the database's, as each comes with libraries of its own; the
/// loader is told of them.
const CACHE: &str = r#"#!/bin/sh
exec /redis/lib64/ld-linux-x86-64.so.2 --library-path /redis/usr/lib/x86_64-linux-gnu \
  /redis/usr/bin/redis-cli -e -h cache "$@"
"#;

/// Answers one request: how many there have been, this one among them, and how many the cache knows of. It is told when
/// it knows nothing, and believed from then on.
const ANSWER: &str = r#"set -e
while read -r line && [ ${#line} -gt 1 ]; do :; done
count=$(/ask 'insert into visits default values' 'select count(*) from visits')
known=$(/cache get visits)
if [ -z "$known" ]; then
  known=$count
  /cache set visits "$known" >/dev/null
fi
printf 'HTTP/1.0 200 OK\r\n\r\n%s %s\n' "$count" "$known"
"#;

/// The database and the cache are Debian's PostgreSQL and Redis.
pub(crate) fn visits_are_counted_in_postgresql_and_cached_in_redis(cove: &Cove) {
    let port = free_port();
    let postgres = programs(cove, "COVE_TEST_POSTGRES");
    let redis = programs(cove, "COVE_TEST_REDIS");
    let client = mounts(&postgres, &["usr/lib/postgresql", "usr/share/postgresql"]);
    let cache = mounts(&redis, &["usr/bin/redis-server", "usr/bin/redis-cli"]);
    let redis = redis.display();
    let compose = format!(
        r#"
x-client: &client
  build: .
  image: visits
  init: true
  volumes: [{client}]
services:
  database:
    <<: *client
    command: sh /postgres
    volumes: [{client}, "rows:/rows"]
    healthcheck:
      test: /usr/lib/postgresql/17/bin/pg_isready -h /tmp
      interval: 1s
      retries: 300
  migrate:
    <<: *client
    command: /ask 'create table if not exists visits (id serial)'
    depends_on:
      database: {{condition: service_healthy}}
  cache:
    image: alpine
    command: [redis-server, --save, "", --protected-mode, "no"]
    volumes: [{cache}]
    healthcheck:
      test: redis-cli ping
      interval: 1s
      retries: 300
  web:
    <<: *client
    command: nc -lk -p 80 -e sh /answer
    volumes: [{client}, "{redis}:/redis:ro"]
    ports: ["127.0.0.1:{port}:80"]
    depends_on:
      migrate: {{condition: service_completed_successfully}}
      cache: {{condition: service_healthy}}
volumes:
  rows: {{}}
"#
    );
    let project = Project::new(
        cove,
        "visits",
        &[
            ("compose.yaml", &compose),
            (
                "Dockerfile",
                "FROM alpine\nCOPY postgres answer /\nCOPY --chmod=755 ask cache /\n",
            ),
            ("postgres", POSTGRES),
            ("answer", ANSWER),
            ("ask", ASK),
            ("cache", CACHE),
        ],
    );
    project.compose("up -d --build").ok();
    let visit = || -> (u64, u64) {
        // The server may listen a moment after its container runs.
        within(Duration::from_mins(1), "two numbers", || {
            let page = fetch(port)?;
            let (count, known) = page.split_once(' ')?;
            Some((count.parse().ok()?, known.parse().ok()?))
        })
    };
    let (first, known) = visit();
    assert!((1..=first).contains(&known), "{known} of {first}");
    let (second, still_known) = visit();
    assert!(second > first, "{second} after {first}");
    assert_eq!(still_known, known, "the cache has forgotten");
    // What is only cached is gone with the cache's process, and comes from the database again.
    project.compose("restart cache").ok();
    let (third, known) = visit();
    assert!(third > second, "{third} after {second}");
    assert!(known > second, "{known} is older than the cache, after {second}");
    // Whoever was counted is counted for good.
    project.compose("down").ok();
    project.compose("up -d").ok();
    let (fourth, known) = visit();
    assert!(fourth > third, "{fourth} after {third}");
    assert!(known > third, "{known} is older than the cache, after {third}");
    drop(project);
    docker(cove, "rmi visits").ok();
}

pub(crate) fn profiles_select_services_and_health_orders_them(cove: &Cove) {
    let compose = "
services:
  base:
    image: alpine
    volumes: ['order:/order']
    command: sh -c 'sleep 1; touch /order/up; sleep 600'
    healthcheck: {test: test -e /order/up, interval: 300ms, retries: 100}
  migrate:
    image: alpine
    volumes: ['order:/order']
    command: sh -c 'test -e /order/up && sleep 1 && touch /order/migrated'
    depends_on: {base: {condition: service_healthy}}
  app:
    image: alpine
    volumes: ['order:/order']
    command: sh -c 'test -e /order/migrated && sleep 600'
    depends_on: {migrate: {condition: service_completed_successfully}}
  debug:
    image: alpine
    command: sleep 600
    profiles: [debug]
volumes: {order: {}}
";
    let project = Project::new(cove, "ordered", &[("compose.yaml", compose)]);
    project.compose("up -d").ok();
    let running = || project.compose("ps --services --status running").ok();
    let mut services: Vec<String> = running().lines().map(str::to_owned).collect();
    services.sort();
    assert_eq!(services, ["app", "base"]);
    project.compose("--profile debug up -d").ok();
    eventually("the service of the profile", || running().contains("debug"));
}

pub(crate) fn services_are_built_with_their_volumes(cove: &Cove) {
    let compose = "
services:
  tool:
    build:
      context: .
      args: {WHO: compose}
    image: built-by-compose
    volumes: [\"./data:/data\", \"cache:/cache\"]
    environment: [PASSED_ON]
    env_file: settings.env
volumes: {cache: {}}
";
    let project = Project::new(
        cove,
        "built",
        &[
            ("compose.yaml", compose),
            (
                "Dockerfile",
                "FROM alpine\nARG WHO\nENV WHO=$WHO\nCMD echo $WHO $SETTING $PASSED_ON >> /data/out; cat /cache/runs >> /data/out; echo run >> /cache/runs\n",
            ),
            ("settings.env", "SETTING=from a file\n"),
        ],
    );
    let data = Shared::new(cove, project.directory.join("data"));
    for arguments in ["run --rm --build tool", "run --rm tool"] {
        project.compose(arguments).env("PASSED_ON", "and from here").ok();
    }
    let out = fs::read_to_string(data.join("out")).unwrap();
    // The volume has kept what the first run left.
    let line = "compose from a file and from here\n";
    assert_eq!(out, format!("{line}{line}run\n"));
    drop(project);
    docker(cove, "rmi built-by-compose").ok();
}

/// Debian's nginx would write below `/var/lib/nginx` and be whom its build names, and the image is Alpine's: it is told
/// what is there for certain.
const NGINX: &str = "user root;
pid /tmp/nginx.pid;
error_log stderr;
events {}
http {
  access_log off;
  client_body_temp_path /tmp/body;
  proxy_temp_path /tmp/proxy;
  fastcgi_temp_path /tmp/fastcgi;
  uwsgi_temp_path /tmp/uwsgi;
  scgi_temp_path /tmp/scgi;
  include /etc/nginx/server.conf;
}
";

const WORKER: &str = r#"server {
  listen 80;
  return 200 "$hostname\n";
}
"#;

/// A name in a variable is looked up again while the proxy runs, so that workers may come and go.
const PROXY: &str = "server {
  listen 80;
  resolver 127.0.0.11 valid=1s ipv6=off;
  location / {
    set $workers worker;
    proxy_pass http://$workers;
    proxy_connect_timeout 5s;
  }
}
";

/// The proxy and the workers are Debian's nginx.
pub(crate) fn a_scaled_service_is_reached_through_a_proxy(cove: &Cove) {
    let port = free_port();
    let nginx = programs(cove, "COVE_TEST_NGINX");
    // The project's directory, which the configuration is mounted from; it outlasts the containers.
    let _shared = Shared::new(cove, cove.scratch().join("scaled"));
    let mounts = mounts(&nginx, &["usr/sbin/nginx"]);
    let compose = format!(
        r#"
x-nginx: &nginx
  image: alpine
  command: [nginx, -g, "daemon off;"]
services:
  worker:
    <<: *nginx
    volumes: [{mounts}, "./nginx.conf:/etc/nginx/nginx.conf:ro", "./worker.conf:/etc/nginx/server.conf:ro"]
  proxy:
    <<: *nginx
    volumes: [{mounts}, "./nginx.conf:/etc/nginx/nginx.conf:ro", "./proxy.conf:/etc/nginx/server.conf:ro"]
    ports: ["127.0.0.1:{port}:80"]
"#
    );
    let files = [
        ("compose.yaml", compose.as_str()),
        ("nginx.conf", NGINX),
        ("worker.conf", WORKER),
        ("proxy.conf", PROXY),
    ];
    let project = Project::new(cove, "scaled", &files);
    let containers = |service: &str| -> BTreeSet<String> {
        let all = project.compose(&format!("ps -q {service}")).ok();
        // A container's host name is the beginning of its identifier.
        all.lines().map(|id| id.chars().take(12).collect()).collect()
    };
    let scale = |count: usize| {
        project.compose(&format!("up -d --scale worker={count}")).ok();
        let workers = containers("worker");
        assert_eq!(workers.len(), count, "{workers:?}");
        let mut names = BTreeSet::new();
        // Chance decides who answers, and on a busy computer each answer takes its time.
        within_telling(Duration::from_mins(4), || {
            names.extend(fetch(port));
            if names == workers {
                Ok(())
            } else {
                Err(format!("{workers:?} and nobody else to answer: {names:?} did"))
            }
        });
    };
    scale(3);
    let proxy = containers("proxy");
    scale(1);
    scale(2);
    assert_eq!(containers("proxy"), proxy, "the proxy was made anew");
}

pub(crate) fn watch_mode_carries_edits_into_the_container(cove: &Cove) {
    let compose = "
services:
  site:
    build: .
    image: watched-site
    init: true
    command: sh -c 'cat /conf/setting > /used; sleep 600'
    develop:
      watch:
        - {path: ./pages, target: /pages, action: sync}
        - {path: ./conf, target: /conf, action: sync+restart}
        - {path: ./recipe, action: rebuild}
";
    let project = Project::new(
        cove,
        "live",
        &[
            ("compose.yaml", compose),
            (
                "Dockerfile",
                "FROM alpine\nCOPY recipe pages /pages/\nCOPY conf /conf\n",
            ),
            ("recipe", "first\n"),
        ],
    );
    let write = |file: &str, text: &str| {
        let path = project.directory.join(file);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, text).unwrap();
    };
    write("pages/index", "first\n");
    write("conf/setting", "first\n");
    project.compose("up -d --build").ok();
    let seen = |file: &str| project.compose(&format!("exec -T site cat {file}")).run().text();
    for file in ["/pages/index", "/pages/recipe", "/used"] {
        eventually(file, || seen(file) == "first");
    }
    let watching = Running(project.compose("watch --no-up").spawn());
    // The watcher begins in its own time: the first edit is repeated until it is carried over.
    within(LIMIT, "an edit", || {
        write("pages/index", "second\n");
        sleep(Duration::from_secs(1));
        (seen("/pages/index") == "second").then_some(())
    });
    for (file, shown) in [("conf/setting", "/used"), ("recipe", "/pages/recipe")] {
        write(file, "second\n");
        within(LIMIT, file, || (seen(shown) == "second").then_some(()));
    }
    drop(watching);
    drop(project);
    docker(cove, "rmi watched-site").ok();
}
