use super::*;
use proptest::prelude::*;

/// As buildx 0.13 writes a build of two stages, the second of which fails.
const RECORDED: &str = r##"{"vertexes":[{"digest":"sha256:01","name":"[internal] load build definition from Dockerfile","started":"2026-03-01T12:00:00.1Z"}]}
{"statuses":[{"id":"transferring dockerfile:","vertex":"sha256:01","current":0,"timestamp":"2026-03-01T12:00:00.12Z","started":"2026-03-01T12:00:00.11Z"}]}
{"vertexes":[{"digest":"sha256:01","name":"[internal] load build definition from Dockerfile","started":"2026-03-01T12:00:00.1Z","completed":"2026-03-01T12:00:00.3Z"}]}
{"vertexes":[{"digest":"sha256:02","name":"[base 1/2] FROM docker.io/library/alpine:latest"},{"digest":"sha256:03","inputs":["sha256:02"],"name":"[base 2/2] RUN echo one"},{"digest":"sha256:04","inputs":["sha256:03"],"name":"[linux/amd64 stage-1 2/3] RUN make"}]}
{"vertexes":[{"digest":"sha256:02","name":"[base 1/2] FROM docker.io/library/alpine:latest","started":"2026-03-01T12:00:01Z","completed":"2026-03-01T12:00:01Z","cached":true}]}
{"vertexes":[{"digest":"sha256:03","name":"[base 2/2] RUN echo one","started":"2026-03-01T12:00:01Z"}],"statuses":[{"id":"extracting sha256:aa","vertex":"sha256:03","current":25,"total":100,"timestamp":"2026-03-01T12:00:01Z"}]}
{"logs":[{"vertex":"sha256:03","stream":1,"data":"b25lCnR3","timestamp":"2026-03-01T12:00:01.2Z"}]}
{"logs":[{"vertex":"sha256:03","stream":1,"data":"bwoxMCUNNTAlDTEwMCUK","timestamp":"2026-03-01T12:00:01.3Z"}]}
{"vertexes":[{"digest":"sha256:03","name":"[base 2/2] RUN echo one","started":"2026-03-01T12:00:01Z","completed":"2026-03-01T12:00:02.5Z"}]}
{"vertexes":[{"digest":"sha256:04","name":"[linux/amd64 stage-1 2/3] RUN make","started":"2026-03-01T12:00:02.5Z","completed":"2026-03-01T12:00:03Z","error":"process \"/bin/sh -c make\" did not complete successfully: exit code: 127"}]}
{"warnings":[{"vertex":"sha256:04","level":1,"short":"YSB3YXJuaW5n"}]}
ERROR: failed to solve: process "/bin/sh -c make" did not complete successfully: exit code: 127
"##;

fn read_all(text: &[u8], piece: usize) -> (BuildProgress, Vec<TaskStep>) {
    let mut progress = BuildProgress::default();
    let mut told: Vec<_> = text.chunks(piece).flat_map(|part| progress.take(part)).collect();
    told.extend(progress.finish());
    (progress, told)
}

#[test]
fn a_build_is_told_by_stage_with_what_was_cached_how_long_each_step_took_and_why_it_failed() {
    let (progress, told) = read_all(RECORDED.as_bytes(), usize::MAX);
    let steps: Vec<_> = progress.steps().collect();
    let stages: Vec<_> = steps
        .iter()
        .map(|step| (step.stage.as_deref(), step.place.as_str(), step.name.as_str()))
        .collect();
    assert_eq!(
        stages,
        [
            (None, "", "load build definition from Dockerfile"),
            (Some("base"), "1/2", "FROM docker.io/library/alpine:latest"),
            (Some("base"), "2/2", "RUN echo one"),
            (Some("linux/amd64 stage-1"), "2/3", "RUN make"),
        ]
    );
    let states: Vec<_> = steps.iter().map(|step| step.state).collect();
    assert_eq!(
        states,
        [
            BuildStepState::Done,
            BuildStepState::Cached,
            BuildStepState::Done,
            BuildStepState::Failed
        ]
    );
    assert_eq!(steps[2].took_ms, Some(1500));
    assert!(steps[3].error.contains("exit code: 127"));
    assert!(
        progress.failure().starts_with("failed to solve: process"),
        "{}",
        progress.failure()
    );
    assert_eq!(
        progress.log()[2..],
        [
            "#2 [base 1/2] FROM docker.io/library/alpine:latest",
            "#2 CACHED",
            "#3 [base 2/2] RUN echo one",
            "#3 one",
            "#3 two",
            "#3 100%",
            "#3 DONE 1.5s",
            "#4 [linux/amd64 stage-1 2/3] RUN make",
            "#4 ERROR: process \"/bin/sh -c make\" did not complete successfully: exit code: 127",
            "WARNING: a warning",
            "ERROR: failed to solve: process \"/bin/sh -c make\" did not complete successfully: exit code: 127",
        ]
    );
    let under_way = |step: &TaskStep| matches!(step, TaskStep::Build { step } if step.number == 3 && step.note == "extracting sha256:aa" && step.fraction == Some(0.25));
    assert!(told.iter().any(under_way), "{told:?}");
}

#[test]
fn the_only_stage_has_the_name_that_buildkit_gives_it_among_several() {
    for (name, stage, place, what) in [
        ("[2/3] RUN make", Some("stage-0"), "2/3", "RUN make"),
        (
            "[build 2/3] RUN [ -f x ] && y",
            Some("build"),
            "2/3",
            "RUN [ -f x ] && y",
        ),
        (
            "[context src] load .dockerignore",
            Some("context src"),
            "",
            "load .dockerignore",
        ),
        (
            "[auth] library/alpine:pull token",
            None,
            "",
            "library/alpine:pull token",
        ),
        ("exporting to image", None, "", "exporting to image"),
        ("[", None, "", "["),
    ] {
        let found = parts_of(name);
        assert_eq!((found.0.as_deref(), &*found.1, &*found.2), (stage, place, what));
    }
}

#[test]
fn what_a_cancelled_build_left_open_is_ended_with_it() {
    let (progress, told) = read_all(
        br#"{"vertexes":[{"digest":"a","name":"[1/2] RUN sleep 1","started":"2026-03-01T12:00:00Z"},{"digest":"b","name":"[2/2] RUN x"},{"digest":"c","name":"c","started":"2026-03-01T12:00:00Z","completed":"2026-03-01T12:00:00Z","error":"context canceled"}]}"#,
        usize::MAX,
    );
    assert!(
        progress
            .steps()
            .all(|step| step.state == BuildStepState::Cancelled)
    );
    assert!(told.len() > 4, "{told:?}");
}

#[test]
fn what_makes_no_sense_is_left_out() {
    let (progress, _) = read_all(
        br#"{"vertexes":[{"name":"no digest"},7,{"digest":"a","name":9,"started":"then","completed":"2026-03-01T12:00:00Z"}],"statuses":[{"vertex":"who"},{}],"logs":[{"vertex":"a","data":"???"},{"vertex":"b","data":"eA=="}],"warnings":7}
[1]
"a word"
"#,
        usize::MAX,
    );
    assert_eq!(progress.steps().len(), 1);
    assert_eq!(progress.failure(), "\"a word\"");
}

#[test]
fn everything_that_a_build_writes_is_bounded() {
    let mut progress = BuildProgress::default();
    progress.take(br#"{"vertexes":[{"digest":"a","name":"x","started":"2026-03-01T12:00:00Z"}]}"#);
    progress.take(b"\n");
    let line = format!(
        r#"{{"logs":[{{"vertex":"a","data":"{}"}}]}}"#,
        BASE64_STANDARD.encode(vec![b'x'; 100_000])
    );
    for _ in 0..30 {
        progress.take(line.as_bytes());
        progress.take(b"\n");
    }
    let log = progress.log();
    assert_eq!(log[0], "…");
    assert!(log.iter().map(String::len).sum::<usize>() <= LOG + 3);
    // A line of the client's without an end takes no more than its share either, and what follows is read.
    for _ in 0..3 {
        progress.take(&vec![b'y'; LONGEST]);
    }
    assert!(progress.open.is_empty());
    progress.take(b"\nERROR: over\n");
    assert_eq!(progress.failure(), "over");
    for number in 0..STEPS + 10 {
        progress.take(
            format!(
                "{{\"vertexes\":[{{\"digest\":\"d{number}\",\"name\":\"{}\"}}]}}\n",
                "n".repeat(2 * NAME)
            )
            .as_bytes(),
        );
    }
    assert_eq!(progress.steps().len(), STEPS);
    assert!(progress.steps().all(|step| step.name.len() <= NAME));
}

proptest! {
    #[test]
    fn where_the_lines_are_cut_makes_no_difference(piece in 1usize..200) {
        let (whole, cut) = (read_all(RECORDED.as_bytes(), usize::MAX), read_all(RECORDED.as_bytes(), piece));
        prop_assert_eq!(whole.0.log(), cut.0.log());
        prop_assert_eq!(whole.1, cut.1);
    }

    #[test]
    fn arbitrary_lines_never_panic(text in r#"[\{\}\[\]":,a-z0-9\n\r é]{0,200}"#) {
        let _ = read_all(text.as_bytes(), 7);
    }
}
