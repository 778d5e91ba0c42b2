//! Programs with a fault each: the simulator finds it on the marked line, and finds nothing once it is mended.

mod program;
mod run;

use kiln_sim::device::{LoadError, Schedule};
use kiln_sim::finding::{Finding, Kind};
use program::{Program, programs};
use run::{device, run};

/// Schedules of which each must find each fault: a checker judges by what orders the accesses, not by their luck.
const SCHEDULES: [Schedule; 4] =
    [Schedule::Fixed, Schedule::Seeded(1), Schedule::Seeded(2), Schedule::Seeded(77)];

/// The line that a place is at, by the file that carries the marks; 0 where it has none.
fn line(program: &Program, place: &kiln_sim::finding::Place) -> u32 {
    match (&program.source, &place.source) {
        (None, _) => place.ptx_line,
        (Some(file), Some((named, line))) if named.ends_with(file.as_str()) => *line,
        _ => 0,
    }
}

/// What is wrong with one finding of a program.
fn complaint(program: &Program, finding: &Finding) -> Option<String> {
    let kind = finding.kind.name();
    let place = line(program, &finding.place);
    if !program.expects(place, kind) {
        return Some(format!("line {place} is not marked {kind}"));
    }
    if finding.kind == Kind::Race {
        let Some(other) = &finding.other else { return Some("a race names both accesses".into()) };
        let other = line(program, other);
        if !program.expects(other, kind) {
            return Some(format!("line {other} is not marked {kind}"));
        }
        let marked: Vec<u32> = program.marks.iter().map(|(line, _)| *line).collect();
        if !program.races_with_itself
            && marked.len() == 2
            && !marked.iter().all(|line| [place, other].contains(line))
        {
            return Some(format!("lines {place} and {other} are named, {marked:?} are marked"));
        }
    }
    let memory = [Kind::OutOfBounds, Kind::UseAfterFree, Kind::Misaligned, Kind::Uninitialised, Kind::Race];
    if memory.contains(&finding.kind) && finding.location.is_none() {
        return Some("no memory is named".into());
    }
    if finding.place.block.is_none() || finding.place.kernel.as_ref() != program.kernel {
        return Some("kernel or block is not named".into());
    }
    None
}

fn assert_none(complaints: &[String]) {
    assert!(complaints.is_empty(), "{} complaints\n{}", complaints.len(), complaints.join("\n"));
}

#[test]
fn every_fault_is_found_where_it_is() {
    let mut complaints = Vec::new();
    for program in programs("fail") {
        for schedule in SCHEDULES {
            let label = format!("{}, {schedule:?}", program.name);
            match run(&program, &program.ptx, schedule) {
                Err(error) => complaints.push(format!("{label}: {error}")),
                Ok(findings) if findings.is_empty() => complaints.push(format!("{label}: nothing found")),
                Ok(findings) => complaints.extend(findings.iter().filter_map(|finding| {
                    complaint(&program, finding).map(|what| format!("{label}: {what}\n    {finding}"))
                })),
            }
        }
    }
    assert_none(&complaints);
}

/// Without its fault each program is clean: what was found is what was wrong.
#[test]
fn every_mended_program_is_clean() {
    let mut complaints = Vec::new();
    let mut count = 0;
    for program in programs("fail") {
        let Some(ptx) = program.mended() else { continue };
        count += 1;
        for schedule in SCHEDULES {
            let label = format!("{}, {schedule:?}", program.name);
            match run(&program, &ptx, schedule) {
                Err(error) => complaints.push(format!("{label}: {error}")),
                Ok(findings) => complaints.extend(findings.first().map(|f| format!("{label}: {f}"))),
            }
        }
    }
    assert_none(&complaints);
    assert!(count >= 60, "only {count} programs can be mended");
}

/// Findings are the same each time for the same schedule.
#[test]
fn findings_repeat() {
    for program in programs("fail") {
        for schedule in [Schedule::Fixed, Schedule::Seeded(5)] {
            let all = || run(&program, &program.ptx, schedule).map(|findings| format!("{findings:#?}"));
            assert_eq!(all(), all(), "{}, {schedule:?}", program.name);
        }
    }
}

/// Faults that are known not to be found: the documentation of limits names them. One that is found belongs in `fail`.
#[test]
fn what_is_documented_as_missed_is_missed() {
    for program in programs("missed") {
        for schedule in SCHEDULES {
            let findings = run(&program, &program.ptx, schedule).unwrap();
            assert!(findings.is_empty(), "{} is found now: move it to ptx/fail", program.name);
        }
    }
}

/// There is a program for each kind of finding that a launch can have.
#[test]
fn every_kind_has_a_program() {
    let programs = programs("fail");
    let kinds = [
        Kind::OutOfBounds,
        Kind::UseAfterFree,
        Kind::Misaligned,
        Kind::Uninitialised,
        Kind::ReadOnly,
        Kind::Race,
        Kind::Barrier,
        Kind::Mbarrier,
        Kind::Deadlock,
        Kind::OutOfFuel,
        Kind::Trap,
        Kind::Misuse,
    ];
    for kind in kinds {
        let alone = |program: &&Program| program.marks.iter().any(|(_, kinds)| kinds[..] == [kind.name()]);
        assert!(programs.iter().any(|program| alone(&program)), "{} has no program", kind.name());
    }
}

/// Text that cannot be run is refused when it is loaded, with the line.
#[test]
fn every_rejected_text_is_refused_on_its_line() {
    let mut complaints = Vec::new();
    let programs = programs("reject");
    for kind in ["invalid", "unsupported", "wrong-target"] {
        let marked = |program: &Program| program.marks.iter().any(|(line, _)| program.expects(*line, kind));
        assert!(programs.iter().any(marked), "{kind} has no text");
    }
    for program in programs {
        let found = match device(&program, Schedule::Fixed).load(&program.ptx) {
            Ok(_) => (0, "accepted", String::new()),
            Err(LoadError::Invalid { line, message }) => (line, "invalid", message),
            Err(LoadError::Unsupported { line, message }) => (line, "unsupported", message),
            Err(error @ LoadError::WrongTarget { .. }) => {
                (program.marks[0].0, "wrong-target", error.to_string())
            }
            Err(LoadError::OutOfMemory(error)) => (0, "out of memory", error.to_string()),
        };
        let (line, what, message) = found;
        if !program.expects(line, what) {
            complaints.push(format!("{}, line {line}: {what}: {message}", program.name));
        }
    }
    assert_none(&complaints);
}
