/* The stock C client against the server that MIDGE_TEST_SERVER names. Prints TAP. */
#include <dirent.h>
#include <fcntl.h>
#include <nats/nats.h>
#include <pthread.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

enum { PATIENCE_MS = 20000, PAYLOAD_BYTES_MAX = 1024 * 1024 };

/* --- checks: a failing one ends its case by a jump to the case's end ---------------------------- */

static bool case_failed;
static int cases, failures;

#define CHECK(condition)                                                                           \
    do {                                                                                           \
        if (!(condition)) {                                                                        \
            printf("# %s:%d: %s\n", __FILE__, __LINE__, #condition);                               \
            case_failed = true;                                                                    \
            return;                                                                                \
        }                                                                                          \
    } while (0)

#define OK(call)                                                                                   \
    do {                                                                                           \
        natsStatus status_ = (call);                                                               \
        if (status_ != NATS_OK) {                                                                  \
            printf("# %s:%d: %s: %s\n", __FILE__, __LINE__, #call, natsStatus_GetText(status_));   \
            case_failed = true;                                                                    \
            return;                                                                                \
        }                                                                                          \
    } while (0)

#define UNTIL(condition)                                                                           \
    do {                                                                                           \
        int64_t deadline_ = nats_Now() + PATIENCE_MS;                                              \
        while (!(condition) && nats_Now() < deadline_)                                             \
            nats_Sleep(5);                                                                         \
        CHECK(condition);                                                                          \
    } while (0)

/* --- the server ------------------------------------------------------------------------------- */

static char dir[] = "/tmp/midge-interop-XXXXXX";
static char url[64], port[16] = "-1";
static pid_t server_pid;

static bool read_port(void) {
    char suffix[32], path[512], text[4096];
    snprintf(suffix, sizeof suffix, "_%d.ports", (int)server_pid);
    DIR *entries = opendir(dir);
    bool found = false;
    for (struct dirent *e; !found && (e = readdir(entries));) {
        size_t length = strlen(e->d_name), tail = strlen(suffix);
        if (length < tail || strcmp(e->d_name + length - tail, suffix) != 0) continue;
        snprintf(path, sizeof path, "%s/%s", dir, e->d_name);
        FILE *file = fopen(path, "r");
        if (!file) continue;
        text[fread(text, 1, sizeof text - 1, file)] = 0;
        fclose(file);
        int number;
        char *start = strstr(text, "nats://");
        if (start && strchr(text, '}') && sscanf(start, "nats://127.0.0.1:%d", &number) == 1) {
            snprintf(port, sizeof port, "%d", number);
            snprintf(url, sizeof url, "nats://127.0.0.1:%d", number);
            found = true;
        }
    }
    closedir(entries);
    return found;
}

static void server_start(void) {
    const char *program = getenv("MIDGE_TEST_SERVER");
    if (!program) program = "target/debug/midge";
    server_pid = fork();
    if (server_pid == 0) {
        prctl(PR_SET_PDEATHSIG, SIGKILL); /* no server outlives a test that crashed */
        char log[sizeof dir + 16];
        snprintf(log, sizeof log, "%s/server.log", dir);
        int file = open(log, O_WRONLY | O_CREAT | O_APPEND, 0600);
        dup2(file, 1);
        dup2(file, 2);
        execlp(program, program, "-a", "127.0.0.1", "-p", port, "--ports_file_dir", dir, NULL);
        perror(program);
        _exit(127);
    }
    for (int64_t deadline = nats_Now() + PATIENCE_MS; !read_port(); nats_Sleep(5)) {
        if (nats_Now() > deadline || waitpid(server_pid, NULL, WNOHANG) == server_pid) {
            printf("Bail out! the server did not start, see %s/server.log\n", dir);
            exit(1);
        }
    }
}

static void server_kill(void) {
    kill(server_pid, SIGKILL);
    waitpid(server_pid, NULL, 0);
}

/* --- the client ------------------------------------------------------------------------------- */

static atomic_int disconnects, reconnects, closes, errors, lame_ducks;

static void count_event(natsConnection *nc, void *counter) {
    (void)nc;
    atomic_fetch_add((atomic_int *)counter, 1);
}

static void on_error(natsConnection *nc, natsSubscription *sub, natsStatus err, void *closure) {
    (void)nc, (void)sub, (void)closure;
    printf("# error callback: %s\n", natsStatus_GetText(err));
    atomic_fetch_add(&errors, 1);
}

static natsStatus connect_with(natsConnection **nc, bool no_echo) {
    natsOptions *options = NULL;
    natsStatus status = natsOptions_Create(&options);
    if (status == NATS_OK) status = natsOptions_SetURL(options, url);
    if (status == NATS_OK) status = natsOptions_SetNoEcho(options, no_echo);
    if (status == NATS_OK) status = natsOptions_SetReconnectWait(options, 50);
    if (status == NATS_OK) status = natsOptions_SetMaxReconnect(options, 1000);
    if (status == NATS_OK) natsOptions_SetDisconnectedCB(options, count_event, &disconnects);
    if (status == NATS_OK) natsOptions_SetReconnectedCB(options, count_event, &reconnects);
    if (status == NATS_OK) natsOptions_SetClosedCB(options, count_event, &closes);
    if (status == NATS_OK) natsOptions_SetLameDuckModeCB(options, count_event, &lame_ducks);
    if (status == NATS_OK) natsOptions_SetErrorHandler(options, on_error, NULL);
    if (status == NATS_OK) status = natsConnection_Connect(nc, options);
    natsOptions_Destroy(options);
    return status;
}

static natsStatus subscribe(natsSubscription **sub, natsConnection *nc, const char *subject) {
    natsStatus status = natsConnection_SubscribeSync(sub, nc, subject);
    return status == NATS_OK ? natsConnection_Flush(nc) : status;
}

/* The next message must be this one. */
static bool got(natsSubscription *sub, const char *subject, const void *data, int length) {
    natsMsg *msg = NULL;
    if (natsSubscription_NextMsg(&msg, sub, PATIENCE_MS) != NATS_OK) return false;
    bool same = strcmp(natsMsg_GetSubject(msg), subject) == 0 &&
                natsMsg_GetDataLength(msg) == length &&
                (length == 0 || memcmp(natsMsg_GetData(msg), data, length) == 0);
    natsMsg_Destroy(msg);
    return same;
}

static int queued(natsSubscription *sub) {
    uint64_t count = 0;
    return natsSubscription_QueuedMsgs(sub, &count) == NATS_OK ? (int)count : -1;
}

static void echo(natsConnection *nc, natsSubscription *sub, natsMsg *msg, void *closure) {
    (void)sub, (void)closure;
    natsConnection_Publish(nc, natsMsg_GetReply(msg), natsMsg_GetData(msg), natsMsg_GetDataLength(msg));
    natsConnection_Flush(nc);
    natsMsg_Destroy(msg);
}

/* --- the cases: two connections each, made and closed around them --------------------------------- */

static natsConnection *a, *b;

static void publish_subscribe(void) {
    natsSubscription *sub;
    char text[16];
    OK(subscribe(&sub, b, "order.a"));
    for (int i = 0; i < 5000; i++) {
        snprintf(text, sizeof text, "%d", i);
        OK(natsConnection_PublishString(a, "order.a", text));
    }
    for (int i = 0; i < 5000; i++) {
        int length = snprintf(text, sizeof text, "%d", i);
        CHECK(got(sub, "order.a", text, length));
    }
    natsSubscription_Destroy(sub);
}

static void wildcards(void) {
    static const struct {
        const char *wildcard, *matches[3], *misses[4];
    } table[] = {
        {"w.*", {"w.a", "w.b"}, {"w", "w.a.b", "v.a"}},
        {"w.*.c", {"w.a.c", "w.cc.c"}, {"w.c", "w.a.d", "w.a.b.c"}},
        {"w.>", {"w.a", "w.a.b.c"}, {"w", "v.a"}},
        {"*.w", {"a.w", "w.w"}, {"w", "a.b.w"}},
        {"w.*.>", {"w.a.b", "w.a.b.c"}, {"w.a", "w"}},
    };
    for (size_t row = 0; row < sizeof table / sizeof *table; row++) {
        natsSubscription *sub, *end;
        OK(subscribe(&sub, b, table[row].wildcard));
        OK(subscribe(&end, b, "end.wild.card"));
        for (int i = 0; table[row].misses[i]; i++)
            OK(natsConnection_Publish(a, table[row].misses[i], NULL, 0));
        for (int i = 0; table[row].matches[i]; i++)
            OK(natsConnection_Publish(a, table[row].matches[i], NULL, 0));
        /* The last message of this publisher: whatever was to come before it has come. */
        OK(natsConnection_Publish(a, "end.wild.card", NULL, 0));
        CHECK(got(end, "end.wild.card", "", 0));
        for (int i = 0; table[row].matches[i]; i++)
            CHECK(got(sub, table[row].matches[i], "", 0));
        CHECK(queued(sub) == 0);
        natsSubscription_Destroy(sub);
        natsSubscription_Destroy(end);
    }
}

static void queue_group(void) {
    enum { MEMBERS = 3, COUNT = 600 };
    natsConnection *member[MEMBERS];
    natsSubscription *jobs[MEMBERS], *end[MEMBERS];
    bool seen[COUNT] = {false};
    int sum = 0;
    for (int i = 0; i < MEMBERS; i++) {
        OK(connect_with(&member[i], false));
        OK(natsConnection_QueueSubscribeSync(&jobs[i], member[i], "jobs.*", "q"));
        OK(subscribe(&end[i], member[i], "end.of.jobs"));
    }
    for (int i = 0; i < COUNT; i++) {
        char subject[16];
        snprintf(subject, sizeof subject, "jobs.%d", i % 7);
        OK(natsConnection_Publish(a, subject, &i, sizeof i));
    }
    OK(natsConnection_Publish(a, "end.of.jobs", NULL, 0));
    for (int i = 0; i < MEMBERS; i++) {
        CHECK(got(end[i], "end.of.jobs", "", 0));
        int mine = queued(jobs[i]), before = -1;
        CHECK(mine > 0);
        sum += mine;
        while (mine-- > 0) {
            natsMsg *msg;
            int number;
            OK(natsSubscription_NextMsg(&msg, jobs[i], PATIENCE_MS));
            memcpy(&number, natsMsg_GetData(msg), sizeof number);
            natsMsg_Destroy(msg);
            CHECK(number > before && number < COUNT && !seen[number]);
            seen[before = number] = true;
        }
        natsSubscription_Destroy(jobs[i]);
        natsSubscription_Destroy(end[i]);
        natsConnection_Destroy(member[i]);
    }
    CHECK(sum == COUNT);
}

static void request_reply(void) {
    natsSubscription *sub;
    natsMsg *reply = NULL;
    OK(natsConnection_Subscribe(&sub, b, "rr.one", echo, NULL));
    OK(natsConnection_Flush(b));
    OK(natsConnection_RequestString(&reply, a, "rr.one", "ask", PATIENCE_MS));
    CHECK(natsMsg_GetDataLength(reply) == 3 && memcmp(natsMsg_GetData(reply), "ask", 3) == 0);
    natsMsg_Destroy(reply);
    natsSubscription_Destroy(sub);
}

static void *ask(void *number) {
    natsMsg *reply = NULL;
    bool same = natsConnection_Request(&reply, a, "rr.many", number, sizeof(int), PATIENCE_MS) == NATS_OK &&
                natsMsg_GetDataLength(reply) == sizeof(int) &&
                memcmp(natsMsg_GetData(reply), number, sizeof(int)) == 0;
    natsMsg_Destroy(reply);
    return same ? number : NULL;
}

static void two_hundred_requests(void) {
    enum { COUNT = 200 };
    natsSubscription *sub;
    pthread_t thread[COUNT];
    int number[COUNT], answered = 0;
    OK(natsConnection_QueueSubscribe(&sub, b, "rr.many", "q", echo, NULL));
    OK(natsConnection_Flush(b));
    for (int i = 0; i < COUNT; i++) {
        number[i] = i;
        CHECK(pthread_create(&thread[i], NULL, ask, &number[i]) == 0);
    }
    for (int i = 0; i < COUNT; i++) {
        void *result;
        pthread_join(thread[i], &result);
        answered += result != NULL;
    }
    CHECK(answered == COUNT);
    natsSubscription_Destroy(sub);
}

static void no_responders(void) {
    natsMsg *reply = NULL;
    CHECK(natsConnection_RequestString(&reply, a, "rr.nobody", "x", PATIENCE_MS) == NATS_NO_RESPONDERS);
}

static void timeout_without_answer(void) {
    natsSubscription *sub;
    natsMsg *reply = NULL;
    OK(subscribe(&sub, b, "rr.silent"));
    CHECK(natsConnection_RequestString(&reply, a, "rr.silent", "x", 200) == NATS_TIMEOUT);
    natsSubscription_Destroy(sub);
}

static void headers(void) {
    natsSubscription *sub;
    natsMsg *msg;
    const char **values = NULL, *value = NULL;
    int count = 0;
    OK(subscribe(&sub, b, "head"));
    OK(natsMsg_Create(&msg, "head", NULL, "body", 4));
    OK(natsMsgHeader_Add(msg, "X-Mixed-CASE", "One"));
    OK(natsMsgHeader_Add(msg, "X-Mixed-CASE", "Two"));
    OK(natsMsgHeader_Add(msg, "x-mixed-case", "three"));
    OK(natsConnection_PublishMsg(a, msg));
    natsMsg_Destroy(msg);
    OK(natsSubscription_NextMsg(&msg, sub, PATIENCE_MS));
    CHECK(natsMsg_GetDataLength(msg) == 4 && memcmp(natsMsg_GetData(msg), "body", 4) == 0);
    OK(natsMsgHeader_Values(msg, "X-Mixed-CASE", &values, &count));
    CHECK(count == 2 && strcmp(values[0], "One") == 0 && strcmp(values[1], "Two") == 0);
    free((void *)values);
    OK(natsMsgHeader_Get(msg, "x-mixed-case", &value));
    CHECK(strcmp(value, "three") == 0);
    natsMsg_Destroy(msg);
    natsSubscription_Destroy(sub);
}

static void payloads(void) {
    static const char tricky[] = "\r\nPING\r\nMSG a 1 2\r\n\0\r\n";
    natsSubscription *sub;
    unsigned char every[256];
    for (int i = 0; i < 256; i++) every[i] = (unsigned char)i;
    OK(subscribe(&sub, b, "binary"));
    OK(natsConnection_Publish(a, "binary", every, sizeof every));
    OK(natsConnection_Publish(a, "binary", tricky, sizeof tricky));
    OK(natsConnection_Publish(a, "binary", NULL, 0));
    CHECK(got(sub, "binary", every, sizeof every));
    CHECK(got(sub, "binary", tricky, sizeof tricky));
    CHECK(got(sub, "binary", "", 0));

    char *big = malloc(PAYLOAD_BYTES_MAX + 1);
    for (int i = 0; i <= PAYLOAD_BYTES_MAX; i++) big[i] = (char)(i * 31 >> 3);
    for (int i = 0; i < 5; i++) OK(natsConnection_Publish(a, "binary", big, PAYLOAD_BYTES_MAX));
    for (int i = 0; i < 5; i++) CHECK(got(sub, "binary", big, PAYLOAD_BYTES_MAX));
    CHECK(natsConnection_GetMaxPayload(a) == PAYLOAD_BYTES_MAX);
    CHECK(natsConnection_Publish(a, "binary", big, PAYLOAD_BYTES_MAX + 1) == NATS_MAX_PAYLOAD);
    free(big);
    natsSubscription_Destroy(sub);
}

static void auto_unsubscribe(void) {
    natsSubscription *sub, *end;
    natsMsg *msg = NULL;
    OK(subscribe(&sub, b, "auto"));
    OK(subscribe(&end, b, "auto.end"));
    OK(natsSubscription_AutoUnsubscribe(sub, 5));
    OK(natsConnection_Flush(b));
    for (int i = 0; i < 20; i++) OK(natsConnection_Publish(a, "auto", &i, sizeof i));
    OK(natsConnection_Publish(a, "auto.end", NULL, 0));
    CHECK(got(end, "auto.end", "", 0));
    for (int i = 0; i < 5; i++) CHECK(got(sub, "auto", &i, sizeof i));
    CHECK(natsSubscription_NextMsg(&msg, sub, PATIENCE_MS) != NATS_OK);
    CHECK(natsConnection_RequestString(&msg, a, "auto", "x", PATIENCE_MS) == NATS_NO_RESPONDERS);
    natsSubscription_Destroy(sub);
    natsSubscription_Destroy(end);
}

static void no_echo(void) {
    natsConnection *quiet;
    natsSubscription *own, *theirs;
    OK(connect_with(&quiet, true));
    OK(subscribe(&own, quiet, "echo"));
    OK(subscribe(&theirs, b, "echo"));
    OK(natsConnection_PublishString(quiet, "echo", "mine"));
    OK(natsConnection_Flush(quiet));
    CHECK(got(theirs, "echo", "mine", 4));
    OK(natsConnection_PublishString(b, "echo", "yours"));
    CHECK(got(own, "echo", "yours", 5));
    CHECK(queued(own) == 0);
    natsSubscription_Destroy(own);
    natsSubscription_Destroy(theirs);
    natsConnection_Destroy(quiet);
}

static void drain(void) {
    natsConnection *service;
    natsSubscription *sub, *inbox;
    OK(connect_with(&service, false));
    OK(subscribe(&inbox, a, "drain.inbox"));
    OK(natsConnection_Subscribe(&sub, service, "drain.conn", echo, NULL));
    OK(natsConnection_Flush(service));
    for (int i = 0; i < 500; i++)
        OK(natsConnection_PublishRequest(a, "drain.conn", "drain.inbox", &i, sizeof i));
    OK(natsConnection_Flush(a));
    int first = 0, before = atomic_load(&closes);
    CHECK(got(inbox, "drain.inbox", &first, sizeof first));
    OK(natsConnection_Drain(service));
    for (int i = 1; i < 500; i++) CHECK(got(inbox, "drain.inbox", &i, sizeof i));
    UNTIL(natsConnection_IsClosed(service) && atomic_load(&closes) > before);
    natsSubscription_Destroy(sub);
    natsSubscription_Destroy(inbox);
    natsConnection_Destroy(service);
}

static void reconnect_after_kill(void) {
    natsSubscription *plain, *group;
    natsConnection *other;
    OK(subscribe(&plain, a, "again.*"));
    OK(natsConnection_QueueSubscribeSync(&group, a, "again.queue", "q"));
    OK(natsConnection_Flush(a));
    atomic_store(&disconnects, 0);
    atomic_store(&reconnects, 0);
    server_kill();
    UNTIL(atomic_load(&disconnects) == 2);
    server_start();
    UNTIL(atomic_load(&reconnects) == 2);
    OK(natsConnection_Flush(a));
    OK(connect_with(&other, false));
    OK(natsConnection_PublishString(other, "again.queue", "1"));
    OK(natsConnection_PublishString(other, "again.end", "2"));
    CHECK(got(plain, "again.queue", "1", 1));
    CHECK(got(plain, "again.end", "2", 1));
    CHECK(got(group, "again.queue", "1", 1));
    natsSubscription_Destroy(plain);
    natsSubscription_Destroy(group);
    natsConnection_Destroy(other);
}

static void lame_duck(void) {
    natsSubscription *sub;
    OK(subscribe(&sub, b, "ldm"));
    atomic_store(&lame_ducks, 0);
    kill(server_pid, SIGUSR2);
    UNTIL(atomic_load(&lame_ducks) == 2);
    OK(natsConnection_PublishString(a, "ldm", "still served"));
    CHECK(got(sub, "ldm", "still served", 12));
    natsSubscription_Destroy(sub);
}

static void run(const char *name, void (*body)(void)) {
    atomic_store(&errors, 0);
    case_failed = connect_with(&a, false) != NATS_OK || connect_with(&b, false) != NATS_OK;
    if (case_failed)
        printf("# no connection to %s\n", url);
    else
        body();
    natsConnection_Destroy(a);
    natsConnection_Destroy(b);
    a = b = NULL;
    case_failed |= atomic_load(&errors) != 0; /* no case provokes one */
    failures += case_failed;
    printf("%s %d - %s\n", case_failed ? "not ok" : "ok", ++cases, name);
    fflush(stdout);
}

#define RUN(name) run(#name, name)

int main(void) {
    setvbuf(stdout, NULL, _IOLBF, 0);
    nats_Open(-1);
    if (!mkdtemp(dir)) return perror(dir), 1;
    server_start();
    RUN(publish_subscribe);
    RUN(wildcards);
    RUN(queue_group);
    RUN(request_reply);
    RUN(two_hundred_requests);
    RUN(no_responders);
    RUN(timeout_without_answer);
    RUN(headers);
    RUN(payloads);
    RUN(auto_unsubscribe);
    RUN(no_echo);
    RUN(drain);
    RUN(reconnect_after_kill);
    RUN(lame_duck); /* last: the server is on its way out */
    server_kill();
    printf("1..%d\n", cases);
    if (failures == 0) {
        char command[sizeof dir + 16];
        snprintf(command, sizeof command, "rm -rf %s", dir);
        if (system(command) != 0) return 1;
    }
    nats_Close();
    return failures != 0;
}
