//! Calls on what is not there, and on the wrong thing.

use super::tell;

#[test]
fn an_unknown_gid_is_named() {
    tell("abort tcc -> 500 no TransGlobal with gid: g found");
    tell("stop -> 500 no TransGlobal with gid: g found");
    tell("reset -> 500 no TransGlobal with gid: g found");
    tell("register tcc 01 -> 409 no trans with gid: g status: prepared found FAILURE");
}

#[test]
fn a_missing_or_wrong_type_is_named() {
    tell("submit -> 400 trans_type: is missing");
    tell("prepare what -> 400 trans_type: must be msg, saga, tcc, xa or workflow");
    tell(
        "prepare tcc -> created
         abort msg -> 409 trans type: 'tcc' current status 'prepared', cannot abort. FAILURE
         prepare xa -> 409 gid 'g' is a 'tcc' already, not a 'xa'. FAILURE
         submit xa -> 409 gid 'g' is a 'tcc' already, not a 'xa'. FAILURE
         status -> prepared",
    );
}

#[test]
fn a_submit_out_of_nothing_creates() {
    for mode in ["tcc", "xa"] {
        tell(&format!("submit {mode} -> created\ndrive -> succeed"));
    }
}

#[test]
fn force_stop_ends_what_is_unfinished() {
    tell(
        "submit saga 2 -> created
         drive 01/action=ongoing -> submitted, again in 10s
         stop -> changed
         drive -> failed
         rows -> p p p p
         stop -> 409 global transaction force stop error. status: failed. error: FAILURE",
    );
    for undecided in ["msg 1 query", "tcc", "xa", "workflow"] {
        tell(&format!("prepare {undecided} -> created\nstop -> changed\ndrive -> failed"));
    }
}

#[test]
fn reset_makes_due_what_waits() {
    tell(
        "submit saga 1 -> created
         drive 01/action=huh -> submitted, again in 20s
         reset -> changed
         drive 01/action=ok -> succeed
         reset -> same",
    );
}

#[test]
fn what_a_submit_leaves_out_stays_as_prepared() {
    tell(
        "prepare msg 1 query interval=30 -> created
         submit msg -> changed
         drive 01/action=ongoing -> submitted, again in 30s",
    );
}
