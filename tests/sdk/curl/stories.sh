#!/bin/sh
# Without any SDK: dtm's HTTP interface by curl, as its documentation does it. tests/it/sdk.rs runs it.
#
# The branches that agree are rushline's own ping; the one that refuses is a registration it must refuse with 409.
set -eu

server=$RUSHLINE_HTTP/api/dtmsvr
yes=$RUSHLINE_HTTP/api/ping
no=$server/registerBranch
refused='{\"gid\":\"nobody\",\"trans_type\":\"tcc\",\"branch_id\":\"01\"}'

fail() { printf '%s\n' "$1" >&2; exit 1; }

# is WHAT GOT WANTED
is() { [ "$2" = "$3" ] || fail "$1: $2, not $3"; }

post() { curl -sS "$server/$1" -d "$2"; }
new_gid() { curl -sS "$server/newGid" | sed 's/.*"gid":"\([^"]*\)".*/\1/'; }
status() { curl -sS "$server/query?gid=$1" | sed -e 's/.*"transaction"://' -e 's/.*"status":"\([^"]*\)".*/\1/'; }

wait_for() {
    tries=0
    until [ "$(status "$1")" = "$2" ]; do
        tries=$((tries + 1))
        [ "$tries" -lt 600 ] || fail "$1 is $(status "$1") and does not become $2"
        sleep 0.1
    done
}

success='{"dtm_result":"SUCCESS"}'

# ---- a saga that succeeds; the client waits for its end ---------------------------------------------------------
gid=$(new_gid)
is 'a new gid has 22 characters' "${#gid}" 22
steps="[{\"action\":\"$yes\",\"compensate\":\"$yes\"},{\"action\":\"\",\"compensate\":\"\"}]"
saga="{\"gid\":\"$gid\",\"trans_type\":\"saga\",\"steps\":$steps,\"payloads\":[\"{}\",\"{}\"],\"wait_result\":true}"
is 'a saga' "$(post submit "$saga")" "$success"
is 'its end' "$(status "$gid")" succeed
is 'again' "$(post submit "$saga")" "$success"

# ---- one that is refused, and taken back ------------------------------------------------------------------------
gid=$(new_gid)
steps="[{\"action\":\"$yes\",\"compensate\":\"$yes\"},{\"action\":\"$no\",\"compensate\":\"$yes\"}]"
post submit "{\"gid\":\"$gid\",\"trans_type\":\"saga\",\"steps\":$steps,\"payloads\":[\"{}\",\"$refused\"]}" >/dev/null
wait_for "$gid" failed
curl -sS "$server/query?gid=$gid" | grep -q '"rollback_reason":"url:.*no trans with gid: nobody' ||
    fail "the reason of the refusal is not told: $(curl -sS "$server/query?gid=$gid")"

# ---- a message: prepared, submitted -----------------------------------------------------------------------------
gid=$(new_gid)
message="{\"gid\":\"$gid\",\"trans_type\":\"msg\",\"steps\":[{\"action\":\"$yes\"}],\"payloads\":[\"{}\"],\"query_prepared\":\"$yes\"}"
is 'prepare' "$(post prepare "$message")" "$success"
is 'it is prepared' "$(status "$gid")" prepared
is 'submit' "$(post submit "$message")" "$success"
wait_for "$gid" succeed

# ---- a message to a topic ---------------------------------------------------------------------------------------
topic=orders-$gid
is 'subscribe' "$(curl -sS -G "$server/subscribe" --data-urlencode "topic=$topic" --data-urlencode "url=$yes")" "$success"
gid=$(new_gid)
message="{\"gid\":\"$gid\",\"trans_type\":\"msg\",\"steps\":[{\"action\":\"topic://$topic\"}],\"payloads\":[\"{}\"],\"wait_result\":true}"
is 'to a topic' "$(post submit "$message")" "$success"
is 'delete the topic' "$(curl -sS -X DELETE "$server/topic/$topic")" "$success"

# ---- a TCC: prepare, register, submit; and one that is aborted --------------------------------------------------
for end in submit:succeed abort:failed; do
    gid=$(new_gid)
    tcc="{\"gid\":\"$gid\",\"trans_type\":\"tcc\"}"
    is 'prepare' "$(post prepare "$tcc")" "$success"
    branch="{\"gid\":\"$gid\",\"trans_type\":\"tcc\",\"branch_id\":\"01\",\"data\":\"{}\",\"confirm\":\"$yes\",\"cancel\":\"$yes\"}"
    is 'register' "$(post registerBranch "$branch")" "$success"
    is "${end%:*}" "$(post "${end%:*}" "$tcc")" "$success"
    wait_for "$gid" "${end#*:}"
done

# ---- over JSON-RPC ----------------------------------------------------------------------------------------------
call='{"jsonrpc":"2.0","id":"1","method":"newGid","params":{}}'
curl -sS "$RUSHLINE_HTTP/api/json-rpc" -d "$call" | grep -q '"error":null,"id":"1","jsonrpc":"2.0","result":{"gid":"' ||
    fail 'no gid over JSON-RPC'
printf '%s\n' 'the stories of curl end well'
