//! Sagas.

use super::tell;

#[test]
fn actions_run_one_after_another() {
    tell(
        "submit saga 2 -> created
         drive 01/action=ok 02/action=ok -> succeed
         rows -> p s p s
         answer -> 200",
    );
}

#[test]
fn the_first_step_refuses() {
    tell(
        "submit saga 2 wait -> created
         drive 01/action=no 01/compensate=ok -> failed
         rows -> s f p p
         reason -> url:http://h/0 return failed: no money FAILURE
         answer -> 409 url:http://h/0 return failed: no money FAILURE",
    );
}

#[test]
fn the_last_step_refuses() {
    tell(
        "submit saga 2 -> created
         drive 01/action=ok 02/action=no 02/compensate=ok 01/compensate=ok -> failed
         rows -> s s s f",
    );
}

#[test]
fn an_ongoing_action_is_asked_again_after_the_same_interval() {
    tell(
        "submit saga 2 wait -> created
         drive 01/action=ongoing -> submitted, again in 10s
         answer -> 409 wait result not return success: FAILURE
         after 10s
         drive 01/action=ok 02/action=ongoing -> submitted, again in 10s
         rows -> p s p p
         after 10s
         drive 02/action=ok -> succeed",
    );
}

#[test]
fn a_compensation_is_tried_until_it_succeeds() {
    tell(
        "submit saga 2 wait -> created
         drive 01/action=ok 02/action=no 02/compensate=huh -> aborting, again in 20s
         answer -> 409 url:http://h/1 return failed: no money FAILURE
         after 20s
         drive 02/compensate=no -> aborting, again in 40s
         after 40s
         drive 02/compensate=ok 01/compensate=ongoing -> aborting, again in 10s
         after 10s
         drive 01/compensate=ok -> failed",
    );
}

#[test]
fn a_timeout_undoes_what_may_have_run() {
    tell(
        "submit saga 2 timeout=1800 -> created
         drive 01/action=huh -> submitted, again in 20s
         after 3600s
         drive 01/compensate=ok -> failed
         rows -> s p p p
         reason -> Timeout after 1800 seconds",
    );
    tell(
        "submit saga 2 timeout=1800 -> created
         drive 01/action=ok 02/action=ongoing -> submitted, again in 10s
         after 3600s
         drive 02/compensate=ok 01/compensate=ok -> failed
         rows -> s s s p",
    );
}

#[test]
fn a_timeout_is_not_slept_through() {
    tell(
        "submit saga 2 timeout=15 -> created
         drive 01/action=huh -> submitted, again in 15s
         after 15s
         drive 01/compensate=ok -> failed",
    );
    tell(
        "submit saga 1 -> created
         after 360000s
         drive 01/action=ok -> succeed",
    );
}

#[test]
fn a_retry_limit_is_spent_at_once() {
    tell(
        "submit saga 2 limit=1 -> created
         drive 01/action=huh 01/action=ongoing 01/compensate=ok -> failed
         reason -> RetryCount is greater than RetryLimit, RetryLimit: 1",
    );
    tell(
        "submit saga 2 limit=2 -> created
         drive 01/action=huh 01/action=ok 02/action=huh crash -> submitted, crashed at 02/action
         drive 02/action=huh 02/compensate=ok 01/compensate=ok -> failed
         reason -> RetryCount is greater than RetryLimit, RetryLimit: 2",
    );
}

#[test]
fn concurrent_actions_run_at_once_and_all_answer_before_any_is_undone() {
    tell(
        "submit saga 3 concurrent -> created
         drive 02/action=ok 03/action=no 01/action=huh 03/compensate=ok 01/compensate=ok 02/compensate=ok -> failed
         rows -> s p s s s f",
    );
    tell(
        "submit saga 2 concurrent -> created
         drive 02/action=ok 01/action=ok -> succeed",
    );
}

#[test]
fn a_concurrent_saga_goes_on_beside_a_slow_branch() {
    tell(
        r#"submit saga 3 orders={"2":[0]} -> created
         drive 02/action=ongoing 01/action=ok 03/action=ok -> submitted, again in 10s
         rows -> p s p p p s
         after 10s
         drive 02/action=ok -> succeed"#,
    );
}

#[test]
fn orders_hold_forward_and_backward() {
    tell(
        r#"submit saga 3 orders={"1":[0],"2":[0,1]} -> created
         drive 01/action=ok 02/action=ok 03/action=no 03/compensate=ok 02/compensate=ok 01/compensate=ok -> failed"#,
    );
    tell(
        r#"submit saga 2 orders={"1":[0]} -> created
         drive 01/action=no 01/compensate=ok -> failed
         rows -> s f p p"#,
    );
}

#[test]
fn a_step_that_never_ran_is_not_undone() {
    tell(
        r#"submit saga 3 orders={"1":[0],"2":[1]} -> created
         drive 01/action=ok 02/action=no 02/compensate=ok 01/compensate=ok -> failed
         rows -> s s s f p p"#,
    );
}

#[test]
fn a_crash_between_refusal_and_decision_keeps_the_reason() {
    tell(
        "submit saga 2 concurrent -> created
         drive 01/action=no crash -> submitted, crashed at 02/action
         drive 02/compensate=ok 01/compensate=ok -> failed
         reason -> url:http://h/0 return failed: no money FAILURE
         rows -> s f s p",
    );
}

#[test]
fn repeated_and_late_calls_change_nothing() {
    tell(
        "submit saga 2 -> created
         drive 01/action=ok 02/action=ongoing -> submitted, again in 10s
         submit saga 2 -> same
         submit saga 3 -> 409 gid 'g' has other steps already. FAILURE
         submit msg 2 -> 409 gid 'g' is a 'saga' already, not a 'msg'. FAILURE
         prepare saga 2 -> 409 current status 'submitted', cannot prepare. FAILURE
         abort saga -> 409 trans type: 'saga' current status 'submitted', cannot abort. FAILURE
         rows -> p s p p
         after 10s
         drive 02/action=no 02/compensate=huh -> aborting, again in 20s
         submit saga 2 -> 409 current status 'aborting', cannot sumbmit. FAILURE
         stop -> changed
         submit saga 2 -> 409 current status 'failed', cannot sumbmit. FAILURE
         drive -> failed",
    );
}

#[test]
fn prepared_by_hand_and_never_submitted_it_fails_unrun() {
    tell(
        "prepare saga 1 -> created
         after 35s
         drive -> failed
         reason -> Timeout after 35 seconds
         rows -> p p",
    );
}

#[test]
fn an_empty_saga_succeeds() {
    tell(
        "submit saga 0 -> created
         drive -> succeed",
    );
}
