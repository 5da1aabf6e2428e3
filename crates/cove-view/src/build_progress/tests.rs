use super::*;
use proptest::prelude::*;

/// As buildx 0.13 writes a build of two stages, the second of which fails.
const RECORDED: &str = r#"#0 building with "default" instance using docker driver

#1 [internal] load build definition from Dockerfile
#1 transferring dockerfile: 120B done
#1 DONE 0.1s

#2 [base 1/2] FROM docker.io/library/alpine:latest
#2 CACHED

#3 [base 2/2] RUN echo one
#3 sha256:aa 1.05MB / 4.20MB 0.2s
#3 0.213 one
#3 0.320 10%	50%	100%
#3 ...

#4 [linux/amd64 stage-1 1/2] RUN sleep 1
#4 DONE 0.2s

#3 [base 2/2] RUN echo one
#3 0.913 #1 DONE 9.9s
#3 DONE 1.5s

#5 [linux/amd64 stage-1 2/3] RUN make
#5 0.104 /bin/sh: make: not found
#5 ERROR: process "/bin/sh -c make" did not complete successfully: exit code: 127
------
 > [linux/amd64 stage-1 2/3] RUN make:
0.104 /bin/sh: make: not found
------
ERROR: failed to solve: process "/bin/sh -c make" did not complete successfully: exit code: 127
"#;

fn read_all(text: &[u8], piece: usize) -> (BuildProgress, Vec<TaskStep>) {
    let mut progress = BuildProgress::default();
    let mut told: Vec<_> = text.chunks(piece).flat_map(|part| progress.take(part)).collect();
    told.extend(progress.finish());
    (progress, told)
}

#[test]
fn a_build_is_told_by_stage_with_what_was_cached_how_long_each_step_took_and_why_it_failed() {
    let text = RECORDED.replace("10%\t50%\t", "10%\r50%\r");
    let (progress, told) = read_all(text.as_bytes(), usize::MAX);
    let steps = progress.steps();
    let stages: Vec<_> = steps
        .iter()
        .map(|step| (step.stage.as_deref(), &*step.place, &*step.name, step.state))
        .collect();
    assert_eq!(
        stages,
        [
            (
                None,
                "",
                "load build definition from Dockerfile",
                BuildStepState::Done
            ),
            (
                Some("base"),
                "1/2",
                "FROM docker.io/library/alpine:latest",
                BuildStepState::Cached
            ),
            (Some("base"), "2/2", "RUN echo one", BuildStepState::Done),
            (
                Some("linux/amd64 stage-1"),
                "1/2",
                "RUN sleep 1",
                BuildStepState::Done
            ),
            (
                Some("linux/amd64 stage-1"),
                "2/3",
                "RUN make",
                BuildStepState::Failed
            ),
        ]
    );
    assert_eq!((steps[0].took_ms, steps[2].took_ms), (Some(100), Some(1500)));
    assert!(steps[4].error.contains("exit code: 127"));
    assert!(
        progress.failure().starts_with("failed to solve: process"),
        "{}",
        progress.failure()
    );
    let log = progress.log();
    let of_third: Vec<_> = log.iter().filter(|line| line.starts_with("#3")).collect();
    assert_eq!(
        of_third,
        [
            "#3 [base 2/2] RUN echo one",
            "#3 sha256:aa 1.05MB / 4.20MB 0.2s",
            "#3 0.213 one",
            "#3 100%",
            "#3 0.913 #1 DONE 9.9s",
            "#3 DONE 1.5s"
        ]
    );
    let under_way = |step: &TaskStep| matches!(step, TaskStep::Build { step } if step.number == 3 && step.note.starts_with("sha256:aa") && step.fraction == Some(0.25));
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
        b"#1 [1/2] RUN sleep 1\n#2 [2/2] RUN x\n#2 CANCELED\n#1 0.5 half a li",
        usize::MAX,
    );
    assert!(
        progress
            .steps()
            .iter()
            .all(|step| step.state == BuildStepState::Cancelled)
    );
    assert!(
        matches!(told.last(), Some(TaskStep::Build { step }) if step.number == 1),
        "{told:?}"
    );
    assert_eq!(
        progress.log().last().map(String::as_str),
        Some("#1 0.5 half a li")
    );
}

#[test]
fn times_and_sizes_are_read_or_left_out() {
    for (text, read) in [
        ("1.4s", Some(1400)),
        ("0.0s", Some(0)),
        ("12.345", Some(12_345)),
        ("12s", None),
        ("s", None),
        ("1.é", None),
        ("99999999999.0s", None),
    ] {
        assert_eq!(milliseconds(text), read, "{text}");
    }
    assert_eq!(fraction("sha256:aa 512B / 1.024kB"), Some(0.5));
    for text in ["a / b", "1MB / 0B", "sha256:aa 1.05MB", " / "] {
        assert_eq!(fraction(text), None, "{text}");
    }
    assert!(
        is_output("0.213 one") && is_output("0.2") && !is_output("1 one") && !is_output("extracting 1.0")
    );
}

#[test]
fn everything_that_a_build_writes_is_bounded() {
    let mut progress = BuildProgress::default();
    progress.take(b"#1 [1/1] RUN yes\n");
    let line = [b"#1 0.1 ".to_vec(), vec![b'x'; 100_000], b"\n".to_vec()].concat();
    for _ in 0..300 {
        progress.take(&line);
    }
    let log = progress.log();
    assert_eq!(log[0], "…");
    assert!(log.iter().all(|line| line.len() <= LINE));
    assert!(log.iter().map(String::len).sum::<usize>() <= LOG + 3);
    for number in 0..STEPS + 10 {
        progress.take(format!("#{number} {}\n", "n".repeat(2 * NAME)).as_bytes());
    }
    assert_eq!(progress.steps().len(), STEPS);
    assert!(progress.steps().iter().all(|step| step.name.len() <= NAME));
}

proptest! {
    #[test]
    fn where_the_lines_are_cut_makes_no_difference(piece in 1usize..200) {
        let (whole, cut) = (read_all(RECORDED.as_bytes(), usize::MAX), read_all(RECORDED.as_bytes(), piece));
        prop_assert_eq!(whole.0.log(), cut.0.log());
        prop_assert_eq!(whole.1, cut.1);
    }

    #[test]
    fn arbitrary_lines_never_panic(text in r"(#[0-3] )?[#\[\]/.0-9A-Za-z\n\r é]{0,120}") {
        let _ = read_all(text.as_bytes(), 7);
    }
}
