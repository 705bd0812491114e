//! Workflows: the client runs them, the server remembers and calls back.

use super::tell;

#[test]
fn its_client_runs_it_to_the_end() {
    tell(
        "prepare workflow -> created
         register workflow 01 -> added
         register workflow 02 op=commit -> added
         end succeed -> changed
         end succeed -> same
         prepare workflow -> same
         drive -> succeed
         end failed -> 409 current status 'succeed', cannot sumbmit. FAILURE",
    );
}

#[test]
fn a_step_may_have_failed() {
    tell(
        "prepare workflow -> created
         register workflow 01 -> added
         register workflow 02 status=failed -> added
         register workflow 01 op=rollback -> added
         rows -> s f s
         end failed -> changed
         status -> failed",
    );
}

#[test]
fn silent_it_is_called_back() {
    tell(
        "prepare workflow -> created
         drive -> prepared, again in 10s
         after 10s
         drive 00/w=ongoing -> prepared, again in 10s
         after 10s
         drive 00/w=huh -> prepared, again in 20s
         after 20s
         drive 00/w=huh -> prepared, again in 40s
         after 40s
         drive 00/w=huh -> prepared, again in 80s, alert
         end succeed -> changed
         drive -> succeed",
    );
}

#[test]
fn a_step_is_registered_once() {
    tell(
        "prepare workflow -> created
         register workflow 01 -> added
         register workflow 01 -> same
         register workflow 01 status=failed -> 500 storage: UniqueKeyConflict
         register workflow 02 status=prepared -> 400 status: must be succeed or failed
         register workflow 02 op=dance -> 400 op: must be action, commit, rollback or business
         end succeed -> changed
         register workflow 02 -> 409 no trans with gid: g status: prepared found FAILURE",
    );
}

#[test]
fn it_ends_only_as_itself() {
    tell("end succeed -> 500 storage: NotFound");
    tell(
        "prepare workflow -> created
         end prepared -> 400 req_extra: must have the status succeed or failed
         abort workflow -> 409 trans type: 'workflow' current status 'prepared', cannot abort. FAILURE
         stop -> changed
         end failed -> same
         end succeed -> 409 current status 'failed', cannot sumbmit. FAILURE",
    );
    tell(
        "submit saga 1 -> created
         prepare workflow -> 409 gid 'g' is a 'saga' already, not a 'workflow'. FAILURE",
    );
}
