/*
 * Load generator of new connections: one request each, over TLS 1.3 or plain.
 *
 *     tls_connections PORT SECONDS CONNECTIONS full|resumed|plain http/1.1|h2
 *
 * CONNECTIONS connections are open at a time, on one thread. "full" never offers
 * a session, "resumed" always offers the newest ticket of the server. Prints one
 * line of JSON; "resumed" in it counts the handshakes for which
 * SSL_session_reused() is true, so that the caller can verify the kind. With HTTP/1.1
 * the server closes the connection after the response, with HTTP/2 the client does.
 *
 * The client should need less CPU time per connection than the proxy, or the proxy
 * is half idle and the cost of its wake-ups distorts the figures. So the dearest
 * operations of the client are left out, of which the server notices nothing: all
 * connections share one ephemeral X25519 key, the certificate is parsed once, and
 * neither it nor the signature of the server is verified. This works because libssl
 * calls these functions of libcrypto by name, and the definitions of the executable
 * take precedence.
 */

#define _GNU_SOURCE
#include <arpa/inet.h>
#include <dlfcn.h>
#include <errno.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <openssl/err.h>
#include <openssl/evp.h>
#include <openssl/ssl.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

/* Seconds after the end of the run in which open connections may complete. */
#define GRACE 5

static const char REQUEST[] = "GET / HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n";
static const char EXPECTED[] = "HTTP/1.1 200 ";

/* Preface, empty SETTINGS, and HEADERS of stream 1: indexed fields, and :authority as a literal. */
static char H2_REQUEST[] = "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"
                                 "\0\0\0\4\0\0\0\0\0"
                                 "\0\0\016\1\5\0\0\0\1"
                                 "\x82\x86\x84\x01\011localhost";
/* Index of ":scheme: http" in it; ":scheme: https" is the next field of the static table. */
#define H2_SCHEME 43
static const char H2_SETTINGS_ACK[] = "\0\0\0\4\1\0\0\0\0";

/* RFC 9113, 6 and RFC 7541, appendix A. */
enum { DATA, HEADERS, RST_STREAM = 3, SETTINGS, GOAWAY = 7, FRAME_HEADER = 9 };
enum { END_STREAM = 1, STATUS_200 = 0x88, TABLE_SIZE_UPDATE = 0x20 };

typedef struct {
    unsigned char header[FRAME_HEADER];
    int header_size;    /* received bytes of `header` */
    long left;          /* bytes of the payload that are missing */
    int status_known;   /* the first field of the response was read */
    int ok;             /* it is ":status: 200" */
    int ended;          /* the response or the connection has ended */
} Frames;

typedef struct {
    int fd; /* -1: not open */
    SSL *ssl;
    int sent;           /* the request has been written */
    size_t received;    /* bytes of the response */
    char head[sizeof EXPECTED - 1]; /* beginning of the response */
    Frames frames;      /* with HTTP/2 */
    double opened_at;
} Connection;

static struct {
    long connections, resumed, failed, truncated, bytes;
} counts;

static int epoll_fd, tls, resume, priming, h2;
static struct sockaddr_in address;
static SSL_CTX *context;
static SSL_SESSION *session; /* newest ticket */
static float *latencies;     /* milliseconds */
static long latencies_size;

int EVP_DigestVerify(EVP_MD_CTX *ctx, const unsigned char *signature, size_t signature_length,
                     const unsigned char *content, size_t content_length)
{
    (void)ctx, (void)signature, (void)signature_length, (void)content, (void)content_length;
    return 1;
}

int EVP_PKEY_keygen(EVP_PKEY_CTX *ctx, EVP_PKEY **key)
{
    static EVP_PKEY *shared;
    if (shared == NULL) {
        int (*generate)(EVP_PKEY_CTX *, EVP_PKEY **);
        *(void **)&generate = dlsym(RTLD_NEXT, "EVP_PKEY_keygen");
        if (generate(ctx, &shared) <= 0)
            return 0;
    }
    EVP_PKEY_up_ref(shared);
    *key = shared;
    return 1;
}

X509 *d2i_X509(X509 **certificate, const unsigned char **in, long length)
{
    static X509 *parsed;
    if (parsed == NULL) {
        X509 *(*parse)(X509 **, const unsigned char **, long);
        *(void **)&parse = dlsym(RTLD_NEXT, "d2i_X509");
        if ((parsed = parse(NULL, in, length)) == NULL)
            return NULL;
    } else {
        *in += length;
    }
    X509_free(*certificate);
    X509_up_ref(parsed);
    return *certificate = parsed;
}

static int accept_certificate(X509_STORE_CTX *store, void *unused)
{
    (void)store, (void)unused;
    return 1;
}

static double now(void)
{
    struct timespec time;
    clock_gettime(CLOCK_MONOTONIC, &time);
    return time.tv_sec + time.tv_nsec / 1e9;
}

static void fail(const char *what)
{
    perror(what);
    exit(1);
}

static int keep_session(SSL *ssl, SSL_SESSION *ticket)
{
    (void)ssl;
    SSL_SESSION_free(session);
    session = ticket;
    return 1; /* takes the reference */
}

static void start(Connection *c)
{
    struct epoll_event event = {.events = EPOLLIN | EPOLLOUT | EPOLLRDHUP | EPOLLET};
    int on = 1;
    event.data.ptr = c;
    c->opened_at = now();
    c->sent = 0;
    c->received = 0;
    memset(&c->frames, 0, sizeof c->frames);
    c->fd = socket(AF_INET, SOCK_STREAM | SOCK_NONBLOCK, 0);
    if (c->fd < 0)
        fail("socket");
    setsockopt(c->fd, IPPROTO_TCP, TCP_NODELAY, &on, sizeof on);
    if (connect(c->fd, (struct sockaddr *)&address, sizeof address) && errno != EINPROGRESS)
        fail("connect");
    if (epoll_ctl(epoll_fd, EPOLL_CTL_ADD, c->fd, &event))
        fail("epoll_ctl");
    if (tls) {
        c->ssl = SSL_new(context);
        SSL_set_fd(c->ssl, c->fd);
        SSL_set_tlsext_host_name(c->ssl, "localhost");
        SSL_set_connect_state(c->ssl);
        if (resume && session) {
            /* A copy, because OpenSSL marks a session of TLS 1.3 as not resumable after one use. */
            SSL_SESSION *copy = SSL_SESSION_dup(session);
            SSL_set_session(c->ssl, copy);
            SSL_SESSION_free(copy);
        }
    }
}

/* Count the connection and close it. */
static void finish(Connection *c, int with_close_notify)
{
    int answered = h2 ? c->frames.ended && c->frames.ok
                      : c->received >= sizeof c->head && !memcmp(c->head, EXPECTED, sizeof c->head);
    if (answered) {
        if (counts.connections == latencies_size) {
            latencies_size = latencies_size ? 2 * latencies_size : 1 << 16;
            latencies = realloc(latencies, latencies_size * sizeof *latencies);
            if (latencies == NULL)
                fail("realloc");
        }
        latencies[counts.connections++] = (now() - c->opened_at) * 1000;
        counts.bytes += c->received;
        counts.truncated += tls && !h2 && !with_close_notify;
        if (tls && SSL_session_reused(c->ssl))
            counts.resumed++;
    } else {
        counts.failed++;
    }
    if (tls) {
        /* Otherwise OpenSSL marks the ticket as not resumable. */
        SSL_set_shutdown(c->ssl, SSL_SENT_SHUTDOWN | SSL_RECEIVED_SHUTDOWN);
        SSL_free(c->ssl);
        ERR_clear_error();
    }
    close(c->fd);
    c->fd = -1;
}

/* Write bytes that fit into the socket's buffer. */
static void write_all(Connection *c, const char *bytes, int length)
{
    long count = tls ? SSL_write(c->ssl, bytes, length) : write(c->fd, bytes, length);
    if (count != length)
        c->frames.ended = 1, c->frames.ok = 0;
}

/* The end of a frame: the client acknowledges SETTINGS, and stops at the end of the response. */
static void end_frame(Connection *c)
{
    Frames *f = &c->frames;
    int type = f->header[3], flags = f->header[4];
    f->header_size = 0;
    if (type == SETTINGS && !(flags & 1))
        write_all(c, H2_SETTINGS_ACK, sizeof H2_SETTINGS_ACK - 1);
    else if (type == RST_STREAM || type == GOAWAY)
        f->ended = 1, f->ok = 0;
    else if (type <= HEADERS && flags & END_STREAM)
        f->ended = 1;
}

static void read_frames(Connection *c, const unsigned char *at, long count)
{
    Frames *f = &c->frames;
    const unsigned char *end = at + count;
    while (at < end && !f->ended) {
        if (f->header_size < FRAME_HEADER) {
            f->header[f->header_size++] = *at++;
            if (f->header_size < FRAME_HEADER)
                continue;
            f->left = f->header[0] << 16 | f->header[1] << 8 | f->header[2];
        }
        if (f->header[3] == HEADERS && !f->status_known && at < end && f->left) {
            if ((*at & 0xe0) != TABLE_SIZE_UPDATE) {
                f->status_known = 1;
                f->ok = *at == STATUS_200;
            }
            at++, f->left--;
        } else {
            long taken = f->left < end - at ? f->left : end - at;
            at += taken, f->left -= taken;
        }
        if (f->left == 0)
            end_frame(c);
    }
}

/*
 * Write the request or read the response as far as possible.
 * Returns 1 when the server has closed the connection, it has failed, or a response over
 * HTTP/2 has ended.
 */
static int advance(Connection *c)
{
    char buffer[16384];
    for (;;) {
        long count;
        const char *request = h2 ? H2_REQUEST : REQUEST;
        int length = (h2 ? sizeof H2_REQUEST : sizeof REQUEST) - 1;
        if (!c->sent) {
            /* SSL_write performs the handshake first. */
            count = tls ? SSL_write(c->ssl, request, length) : write(c->fd, request, length);
            if (count == length) {
                c->sent = 1;
                continue;
            }
        } else {
            count = tls ? SSL_read(c->ssl, buffer, sizeof buffer) : read(c->fd, buffer, sizeof buffer);
            if (count > 0) {
                if (c->received < sizeof c->head) {
                    size_t missing = sizeof c->head - c->received;
                    memcpy(c->head + c->received, buffer, (size_t)count < missing ? (size_t)count : missing);
                }
                c->received += count;
                if (h2)
                    read_frames(c, (unsigned char *)buffer, count);
                if (c->frames.ended)
                    return 1;
                continue;
            }
        }
        if (!tls)
            return !(count < 0 && (errno == EAGAIN || errno == ENOTCONN));
        int error = SSL_get_error(c->ssl, count);
        if (error == SSL_ERROR_WANT_READ || error == SSL_ERROR_WANT_WRITE)
            return 0;
        return 1;
    }
}

static int compare(const void *a, const void *b)
{
    float x = *(const float *)a, y = *(const float *)b;
    return (x > y) - (x < y);
}

static void create_context(void)
{
    context = SSL_CTX_new(TLS_client_method());
    if (!context || !SSL_CTX_set_min_proto_version(context, TLS1_3_VERSION) ||
        !SSL_CTX_set_ciphersuites(context, "TLS_AES_256_GCM_SHA384") ||
        !SSL_CTX_set1_groups_list(context, "X25519")) {
        ERR_print_errors_fp(stderr);
        exit(1);
    }
    SSL_CTX_set_cert_verify_callback(context, accept_certificate, NULL);
    SSL_CTX_set_read_ahead(context, 1);
    SSL_CTX_set_session_cache_mode(context, SSL_SESS_CACHE_CLIENT | SSL_SESS_CACHE_NO_INTERNAL);
    if (h2)
        SSL_CTX_set_alpn_protos(context, (const unsigned char *)"\2h2", 3);
    if (resume)
        SSL_CTX_sess_set_new_cb(context, keep_session);
}

int main(int argc, char **argv)
{
    if (argc != 6) {
        fprintf(stderr, "usage: tls_connections PORT SECONDS CONNECTIONS full|resumed|plain "
                        "http/1.1|h2\n");
        return 2;
    }
    double seconds = atof(argv[2]);
    int size = atoi(argv[3]);
    tls = strcmp(argv[4], "plain") != 0;
    resume = priming = !strcmp(argv[4], "resumed");
    h2 = !strcmp(argv[5], "h2");
    if (tls)
        H2_REQUEST[H2_SCHEME]++;
    address.sin_family = AF_INET;
    address.sin_port = htons(atoi(argv[1]));
    address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    signal(SIGPIPE, SIG_IGN);
    if (tls)
        create_context();
    epoll_fd = epoll_create1(0);
    Connection *connections = calloc(size, sizeof *connections);
    if (connections == NULL)
        fail("calloc");
    for (int i = 0; i < size; i++)
        connections[i].fd = -1;

    double started_at = now(), at = started_at, ended_at = started_at;
    int open = 0;
    /* The first ticket comes from one full handshake, before all other connections. */
    for (int i = 0; i < (priming ? 1 : size); i++, open++)
        start(&connections[i]);
    while (open && at < started_at + seconds + GRACE) {
        struct epoll_event events[256];
        int count = epoll_wait(epoll_fd, events, 256, 100);
        at = now();
        for (int i = 0; i < count; i++) {
            Connection *c = events[i].data.ptr;
            if (c->fd < 0 || !advance(c))
                continue;
            int notified = tls && SSL_get_shutdown(c->ssl) & SSL_RECEIVED_SHUTDOWN;
            finish(c, notified);
            open--;
            ended_at = at;
            if (at < started_at + seconds) {
                start(c);
                open++;
                for (int j = 1; priming && j < size; j++, open++)
                    start(&connections[j]);
                priming = 0;
            }
        }
    }
    counts.failed += open;
    qsort(latencies, counts.connections, sizeof *latencies, compare);
    printf("{\"connections\": %ld, \"resumed\": %ld, \"failed\": %ld, \"truncated\": %ld, "
           "\"bytes\": %ld, \"seconds\": %.3f, \"p50\": %.3f, \"p99\": %.3f}\n",
           counts.connections, counts.resumed, counts.failed, counts.truncated, counts.bytes,
           ended_at - started_at, counts.connections ? latencies[counts.connections / 2] : 0,
           counts.connections ? latencies[counts.connections * 99 / 100] : 0);
    return 0;
}
