import com.sun.net.httpserver.HttpExchange;
import com.sun.net.httpserver.HttpServer;
import java.net.InetSocketAddress;
import java.net.URI;
import java.net.URLDecoder;
import java.net.http.HttpClient;
import java.net.http.HttpRequest;
import java.net.http.HttpResponse;
import java.nio.charset.StandardCharsets;
import java.sql.Connection;
import java.sql.DriverManager;
import java.util.ArrayList;
import java.util.HashMap;
import java.util.List;
import java.util.Map;
import java.util.concurrent.ConcurrentHashMap;
import java.util.concurrent.Executors;
import pub.dtm.client.DtmClient;
import pub.dtm.client.barrier.BranchBarrier;
import pub.dtm.client.exception.FailureException;
import pub.dtm.client.saga.Saga;
import pub.dtm.client.utils.JsonUtils;

/**
 * The stories of dtmcli-java: saga and TCC over HTTP, with its barrier in MySQL. It has no messages.
 *
 * The branches are a real service in this program. tests/it/sdk.rs starts what is needed and runs it.
 */
public class Stories {
    static final long END_WAIT_MAX_MS = 60_000;
    static final String SERVER = System.getenv("RUSHLINE_HTTP");
    static final DtmClient CLIENT = new DtmClient(URI.create(SERVER).getAuthority());
    static final HttpClient HTTP = HttpClient.newHttpClient();

    // ---- the branches --------------------------------------------------------------------------------------------

    /** What a branch does to an account, times the amount: free, held. */
    static final Map<String, int[]> MOVES = Map.of(
            "out", new int[] {-1, 0}, "out-undo", new int[] {1, 0}, "in", new int[] {1, 0}, "in-undo", new int[] {-1, 0},
            "out-try", new int[] {-1, 1}, "out-confirm", new int[] {0, -1}, "out-cancel", new int[] {1, -1},
            "in-confirm", new int[] {1, 0});
    /** By gid: op/branch_id, in their order. */
    static final Map<String, List<String>> STEPS = new ConcurrentHashMap<>();
    static String shop;

    /** As its URLs are given to the SDK and come back in JSON. */
    public static class Order {
        public String account;
        public int amount;

        public Order() {}

        Order(String account, int amount) {
            this.account = account;
            this.amount = amount;
        }
    }

    static Connection connect() throws Exception {
        URI address = URI.create(System.getenv("SDK_MYSQL"));
        String[] user = address.getUserInfo().split(":", 2);
        String url = "jdbc:mariadb://" + address.getHost() + ":" + address.getPort() + address.getPath();
        return DriverManager.getConnection(url, user[0], user[1]);
    }

    static void serve() throws Exception {
        try (Connection connection = connect()) {
            // This SDK's barrier is in the current database, under this name.
            for (String table : List.of(
                    "create table if not exists barrier (id bigint auto_increment primary key, trans_type varchar(45), "
                            + "gid varchar(128), branch_id varchar(128), op varchar(45), barrier_id varchar(45), reason varchar(45), "
                            + "unique key uniq_barrier (gid, branch_id, op, barrier_id)) engine=InnoDB",
                    "create table if not exists account (name varchar(64) primary key, balance bigint not null, "
                            + "held bigint not null)")) {
                connection.createStatement().execute(table);
            }
        }
        HttpServer service = HttpServer.create(new InetSocketAddress("127.0.0.1", 0), 0);
        service.createContext("/", Stories::answer);
        service.setExecutor(Executors.newCachedThreadPool(work -> {
            Thread thread = new Thread(work);
            thread.setDaemon(true);
            return thread;
        }));
        service.start();
        shop = "http://127.0.0.1:" + service.getAddress().getPort() + "/";
    }

    static void answer(HttpExchange exchange) {
        int status = 200;
        String body = "{}";
        try {
            Map<String, String[]> query = new HashMap<>();
            for (String pair : exchange.getRequestURI().getRawQuery().split("&")) {
                String[] parts = pair.split("=", 2);
                query.put(parts[0], new String[] {URLDecoder.decode(parts[1], StandardCharsets.UTF_8)});
            }
            List<String> steps = STEPS.computeIfAbsent(query.get("gid")[0], gid -> new ArrayList<>());
            String step = query.get("op")[0] + "/" + query.get("branch_id")[0];
            synchronized (steps) {
                steps.add(step);
            }
            String order = new String(exchange.getRequestBody().readAllBytes(), StandardCharsets.UTF_8);
            work(exchange.getRequestURI().getPath().substring(1), query, order);
            // The first answer to an action gets lost: it is called again, and must have its effect once.
            synchronized (steps) {
                if (step.startsWith("action") && steps.stream().filter(step::equals).count() == 1) {
                    status = 500;
                }
            }
        } catch (FailureException refused) {
            status = 409;
            body = "{\"dtm_result\":\"FAILURE\",\"message\":\"" + refused.getMessage() + "\"}";
        } catch (Exception broken) {
            status = 500;
            body = "{\"message\":\"" + broken + "\"}";
        }
        try {
            byte[] bytes = body.getBytes(StandardCharsets.UTF_8);
            exchange.sendResponseHeaders(status, bytes.length);
            exchange.getResponseBody().write(bytes);
        } catch (Exception gone) {
            // whoever asked has gone
        }
        exchange.close();
    }

    static void work(String name, Map<String, String[]> query, String body) throws Exception {
        if (name.equals("no")) {
            throw new FailureException("sold out");
        }
        int[] move = MOVES.get(name);
        if (move == null) {
            return; // nothing to undo, nothing to hold
        }
        Order order = JsonUtils.parseJson(body, Order.class);
        try (Connection connection = connect()) {
            new BranchBarrier(query).call(connection, barrier -> {
                int balance = move[0] * order.amount;
                String update = "update account set balance = balance + ?, held = held + ? where name = ? and balance + ? >= 0";
                try (var statement = connection.prepareStatement(update)) {
                    statement.setInt(1, balance);
                    statement.setInt(2, move[1] * order.amount);
                    statement.setString(3, order.account);
                    statement.setInt(4, balance);
                    if (statement.executeUpdate() == 0) {
                        throw new FailureException("too little in the account");
                    }
                }
            });
        }
    }

    // ---- what the stories ask ------------------------------------------------------------------------------------

    static void check(boolean holds, String what) {
        if (!holds) {
            throw new AssertionError(what);
        }
    }

    static void same(Object got, Object wanted) {
        check(wanted.equals(got), "got " + got + ", not " + wanted);
    }

    static String query(String gid) throws Exception {
        HttpRequest request = HttpRequest.newBuilder(URI.create(SERVER + "/api/dtmsvr/query?gid=" + gid)).build();
        return HTTP.send(request, HttpResponse.BodyHandlers.ofString()).body();
    }

    static void waitFor(String gid, String status) throws Exception {
        long deadline = System.currentTimeMillis() + END_WAIT_MAX_MS;
        for (;;) {
            String found = query(gid);
            String transaction = found.substring(found.indexOf("\"transaction\":"));
            if (transaction.contains("\"status\":\"" + status + "\"")) {
                return;
            }
            check(System.currentTimeMillis() < deadline, gid + " does not become " + status + ": " + found);
            Thread.sleep(20);
        }
    }

    static Order account(String name) throws Exception {
        Order order = new Order("java-" + name + "-" + System.nanoTime(), 30);
        try (Connection connection = connect()) {
            connection.createStatement().execute("insert into account values ('" + order.account + "', 100, 0)");
        }
        return order;
    }

    static void has(Order order, int balance, int held) throws Exception {
        try (Connection connection = connect()) {
            var row = connection.createStatement()
                    .executeQuery("select balance, held from account where name = '" + order.account + "'");
            row.next();
            same(List.of(row.getInt(1), row.getInt(2)), List.of(balance, held));
        }
    }

    // ---- the stories ---------------------------------------------------------------------------------------------

    static void saga() throws Exception {
        Order from = account("from");
        Order to = account("to");
        Saga saga = CLIENT.newSaga();
        saga.add(shop + "out", shop + "out-undo", from).add(shop + "in", shop + "in-undo", to).submit();
        waitFor(saga.getGid(), "succeed");
        same(STEPS.get(saga.getGid()), List.of("action/01", "action/01", "action/02", "action/02"));
        has(from, 70, 0);
        has(to, 130, 0);
    }

    static void sagaThatIsRefused() throws Exception {
        Order from = account("from");
        Saga saga = CLIENT.newSaga();
        saga.add(shop + "out", shop + "out-undo", from).add(shop + "no", shop + "no-undo", from);
        saga.submit();
        waitFor(saga.getGid(), "failed");
        same(STEPS.get(saga.getGid()).subList(3, 5), List.of("compensate/02", "compensate/01"));
        has(from, 100, 0);
    }

    static void sagaAtOnce() throws Exception {
        Order to = account("to");
        Saga saga = CLIENT.newSaga();
        saga.add(shop + "in", shop + "in-undo", to).add(shop + "out", shop + "out-undo", to);
        saga.enableConcurrent().addBranchOrder(1, List.of(0)).enableWaitResult();
        try {
            saga.submit(); // each action is called twice, so the first pass does not end it
        } catch (Exception unfinished) {
            // and that is what a client that waits hears, from dtm too
        }
        waitFor(saga.getGid(), "succeed");
        same(STEPS.get(saga.getGid()), List.of("action/01", "action/01", "action/02", "action/02"));
        has(to, 100, 0);
    }

    static void tcc() throws Exception {
        Order from = account("from");
        Order to = account("to");
        String gid = CLIENT.tccGlobalTransaction(tcc -> {
            tcc.callBranch(from, shop + "out-try", shop + "out-confirm", shop + "out-cancel").close();
            has(from, 70, 30);
            tcc.callBranch(to, shop + "in-try", shop + "in-confirm", shop + "in-cancel").close();
        });
        waitFor(gid, "succeed");
        same(STEPS.get(gid), List.of("try/01", "try/02", "confirm/02", "confirm/01"));
        has(from, 70, 0);
        has(to, 130, 0);
    }

    static void tccThatIsRefused() throws Exception {
        Order from = account("from");
        Order poor = account("poor");
        poor.amount = 500;
        String[] gid = new String[1];
        try {
            CLIENT.tccGlobalTransaction(tcc -> {
                gid[0] = tcc.getGid();
                for (Order order : List.of(from, poor)) {
                    tcc.callBranch(order, shop + "out-try", shop + "out-confirm", shop + "out-cancel").close();
                }
            });
            check(false, "the second branch must have been refused");
        } catch (FailureException refused) {
            waitFor(gid[0], "failed");
        }
        // The refused one is cancelled as well; the barrier finds nothing to take back.
        same(STEPS.get(gid[0]), List.of("try/01", "try/02", "cancel/02", "cancel/01"));
        has(from, 100, 0);
        has(poor, 100, 0);
    }

    interface Story {
        void tell() throws Exception;
    }

    public static void main(String[] arguments) throws Exception {
        serve();
        Map<String, Story> stories = Map.of("saga", Stories::saga, "saga that is refused", Stories::sagaThatIsRefused,
                "saga at once", Stories::sagaAtOnce, "TCC", Stories::tcc, "TCC that is refused", Stories::tccThatIsRefused);
        boolean good = true;
        for (var story : stories.entrySet()) {
            try {
                story.getValue().tell();
                System.out.println("ok     " + story.getKey());
            } catch (Throwable failed) {
                good = false;
                System.out.println("FAILED " + story.getKey());
                failed.printStackTrace(System.out);
            }
        }
        System.exit(good ? 0 : 1);
    }
}
