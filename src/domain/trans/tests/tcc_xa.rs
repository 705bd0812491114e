//! TCC and XA: all branches confirmed or all cancelled.

use super::tell;

#[test]
fn tcc_confirms_the_last_registered_first() {
    tell(
        "prepare tcc -> created
         register tcc 01 -> added
         register tcc 02 -> added
         submit tcc -> changed
         drive 02/confirm=ok 01/confirm=ok -> succeed
         rows -> p s p s",
    );
}

#[test]
fn tcc_cancels_the_last_registered_first() {
    tell(
        "prepare tcc -> created
         register tcc 01 -> added
         register tcc 0101 -> added
         abort tcc try-refused -> changed
         drive 0101/cancel=ok 01/cancel=ongoing -> aborting, again in 10s
         answer -> 425 ONGOING
         after 10s
         drive 01/cancel=ok -> failed
         rows -> s p s p
         reason -> try-refused",
    );
}

#[test]
fn xa_goes_in_the_order_of_registration() {
    tell(
        "prepare xa -> created
         register xa 01 -> added
         register xa 02 -> added
         submit xa -> changed
         drive 01/commit=ok 02/commit=huh -> submitted, again in 20s
         after 20s
         drive 02/commit=ok -> succeed
         rows -> p s p s",
    );
    tell(
        "prepare xa -> created
         register xa 01 -> added
         register xa 02 -> added
         abort xa -> changed
         drive 01/rollback=ok 02/rollback=ok -> failed
         rows -> s p s p",
    );
}

#[test]
fn undecided_it_is_cancelled() {
    tell(
        "prepare tcc -> created
         register tcc 01 -> added
         drive -> prepared, again in 35s
         after 35s
         drive 01/cancel=ok -> failed
         reason -> Timeout after 35 seconds",
    );
    tell(
        "prepare xa timeout=5 -> created
         register xa 01 -> added
         after 5s
         drive 01/rollback=ok -> failed
         reason -> Timeout after 5 seconds",
    );
}

#[test]
fn a_second_phase_is_never_refused() {
    tell(
        "prepare tcc -> created
         register tcc 01 -> added
         submit tcc wait -> changed
         drive 01/confirm=no -> submitted, again in 20s
         answer -> 409 your http/grpc result should be specified as in:|http://d.dtm.pub/practice/arch.html#proto|unkown result will be retried: no money FAILURE
         after 20s
         drive 01/confirm=ok -> succeed",
    );
}

#[test]
fn a_repeated_submit_loses_no_confirm() {
    tell(
        "prepare tcc -> created
         register tcc 01 -> added
         register tcc 02 -> added
         submit tcc -> changed
         drive 02/confirm=ok 01/confirm=huh -> submitted, again in 20s
         submit tcc -> same
         status -> submitted
         after 20s
         drive 01/confirm=ok -> succeed
         submit tcc -> same",
    );
}

#[test]
fn decided_it_takes_no_other_decision_and_no_branch() {
    tell(
        "prepare tcc -> created
         register tcc 01 -> added
         abort tcc -> changed
         abort tcc -> same
         submit tcc -> 409 current status 'aborting', cannot sumbmit. FAILURE
         prepare tcc -> 409 current status 'aborting', cannot prepare. FAILURE
         register tcc 01 -> 409 no trans with gid: g status: prepared found FAILURE
         drive 01/cancel=ok -> failed
         abort tcc -> same
         submit tcc -> 409 current status 'failed', cannot sumbmit. FAILURE
         stop -> 409 global transaction force stop error. status: failed. error: FAILURE
         register tcc 02 -> 409 no trans with gid: g status: prepared found FAILURE",
    );
    tell(
        "prepare xa -> created
         submit xa -> changed
         abort xa -> 409 trans type: 'xa' current status 'submitted', cannot abort. FAILURE
         drive -> succeed
         abort xa -> 409 trans type: 'xa' current status 'succeed', cannot abort. FAILURE
         stop -> 409 global transaction force stop error. status: succeed. error: FAILURE
         submit xa -> same
         reset -> same",
    );
}

#[test]
fn a_repeated_registration_is_the_same_and_another_is_refused() {
    tell(
        "prepare tcc -> created
         register tcc 01 -> added
         register tcc 01 -> same
         register tcc 01 confirm=http://h/other -> 500 storage: UniqueKeyConflict
         register xa 02 -> 409 gid 'g' is a 'tcc' already, not a 'xa'. FAILURE
         register saga 02 -> 500 unknow trans type: saga
         register what 02 -> 500 unknow trans type: what
         rows -> p p",
    );
}

#[test]
fn crashes_repeat_calls_and_nothing_else() {
    tell(
        "prepare tcc -> created
         register tcc 01 -> added
         register tcc 02 -> added
         submit tcc -> changed
         drive crash -> submitted, crashed at 02/confirm
         drive 02/confirm=ok crash -> submitted, crashed at 01/confirm
         drive 01/confirm=ok -> succeed",
    );
}
