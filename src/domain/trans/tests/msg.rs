//! Two-phase messages.

use super::tell;

#[test]
fn submitted_it_is_delivered_in_order() {
    tell(
        "submit msg 2 -> created
         drive 01/action=ok 02/action=ok -> succeed
         rows -> s s
         answer -> 200",
    );
}

#[test]
fn prepared_it_waits_for_its_submit() {
    tell(
        "prepare msg 2 query -> created
         prepare msg 2 query -> same
         drive -> prepared, again in 35s
         after 5s
         submit msg 2 query -> changed
         drive 01/action=ok 02/action=ok -> succeed",
    );
}

#[test]
fn undecided_its_sender_is_asked() {
    tell(
        "prepare msg 2 query -> created
         after 35s
         drive 00/msg=ongoing -> prepared, again in 10s
         after 10s
         drive 00/msg=huh -> prepared, again in 20s
         after 20s
         drive 00/msg=ok 01/action=ok 02/action=ongoing -> submitted, again in 10s
         after 10s
         drive 02/action=ok -> succeed",
    );
}

#[test]
fn a_sender_that_says_no_ends_it() {
    tell(
        "prepare msg 2 query timeout=3 -> created
         after 3s
         drive 00/msg=no -> failed
         rows -> p p
         reason -> url:http://h/query return failed: no money FAILURE
         submit msg 2 -> 409 current status 'failed', cannot sumbmit. FAILURE",
    );
}

#[test]
fn undecided_with_no_one_to_ask_it_is_not_sent() {
    tell(
        "prepare msg 2 -> created
         after 35s
         drive -> failed
         reason -> Timeout: it was neither submitted nor aborted, and has no query_prepared to ask
         submit msg 2 -> 409 current status 'failed', cannot sumbmit. FAILURE",
    );
}

#[test]
fn a_failing_branch_is_tried_at_longer_intervals_up_to_the_ceiling() {
    tell(
        "submit msg 1 -> created
         drive 01/action=huh -> submitted, again in 20s
         answer -> 500 your http/grpc result should be specified as in:|http://d.dtm.pub/practice/arch.html#proto|unkown result will be retried: status 502
         drive -> submitted, again in 20s
         after 20s
         drive 01/action=huh -> submitted, again in 40s
         after 40s
         drive 01/action=huh -> submitted, again in 80s, alert
         after 80s
         drive 01/action=ongoing -> submitted, again in 80s
         after 80s
         drive 01/action=huh -> submitted, again in 160s, alert
         after 160s
         drive 01/action=huh -> submitted, again in 300s, alert
         after 300s
         drive 01/action=huh -> submitted, again in 300s, alert
         reset -> changed
         drive 01/action=ok -> succeed",
    );
}

#[test]
fn a_branch_cannot_refuse_a_submitted_message() {
    tell(
        "submit msg 2 wait -> created
         drive 01/action=no -> submitted, again in 20s
         answer -> 409 your http/grpc result should be specified as in:|http://d.dtm.pub/practice/arch.html#proto|unkown result will be retried: no money FAILURE
         rows -> p p
         after 20s
         drive 01/action=ok 02/action=ongoing -> submitted, again in 10s
         answer -> 409 wait result not return success: FAILURE
         after 10s
         drive 02/action=ok -> succeed",
    );
}

#[test]
fn concurrent_branches_double_the_interval_once() {
    tell(
        "submit msg 3 concurrent -> created
         drive 03/action=huh 01/action=huh 02/action=ok -> submitted, again in 20s
         rows -> p s p
         after 20s
         drive 01/action=ok 03/action=ok -> succeed",
    );
    tell(
        "submit msg 2 concurrent -> created
         drive 01/action=huh 02/action=ok -> submitted, again in 20s
         after 20s
         drive 01/action=ongoing -> submitted, again in 20s
         after 20s
         drive 01/action=huh -> submitted, again in 40s",
    );
}

#[test]
fn a_delay_holds_it_back() {
    tell(
        "submit msg 1 delay=60 -> created
         drive -> submitted, again in 60s
         submit msg 1 delay=60 -> same
         after 60s
         drive 01/action=ok -> succeed",
    );
}

#[test]
fn a_topic_becomes_its_subscribers() {
    tell(
        "submit msg topic=two 1 topic=one -> created
         drive 01-01/action=ok 01-02/action=huh -> submitted, again in 20s
         after 20s
         drive 01-02/action=ok 02/action=ok 03/action=ok -> succeed",
    );
    tell("submit msg topic=none -> 500 topic not found");
    tell("submit msg topic=left -> 500 topic not found");
}

#[test]
fn a_submit_after_a_prepare_asks_for_no_topic_again() {
    tell(
        "prepare msg topic=two query -> created
         submit msg topic=two -> changed
         drive 01-01/action=ok 01-02/action=ok -> succeed",
    );
}

#[test]
fn aborted_it_is_never_sent() {
    tell(
        "prepare msg 1 query -> created
         abort msg changed-my-mind -> changed
         drive -> failed
         reason -> changed-my-mind
         abort msg -> same
         abort -> same
         rows -> p",
    );
}

#[test]
fn a_crash_costs_only_a_repeated_call() {
    tell(
        "submit msg 2 -> created
         drive 01/action=ok crash -> submitted, crashed at 02/action
         drive 02/action=ok -> succeed",
    );
}

#[test]
fn own_intervals_and_timeouts_count() {
    tell(
        "prepare msg 1 query timeout=2 -> created
         after 2s
         drive 00/msg=ongoing -> prepared, again in 2s",
    );
    tell(
        "submit msg 1 interval=400 -> created
         drive 01/action=huh -> submitted, again in 400s",
    );
}
