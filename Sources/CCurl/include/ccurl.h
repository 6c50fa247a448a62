#pragma once
// libcurl, loaded on first use: most runs of kedge talk to no object store, and linking libcurl and what it needs would
// cost each of them some 3 ms (docs/decisions/0001-one-static-binary.md). libcurl's variadic calls stay in ccurl.c: what
// Swift sees is one function that runs one whole HTTP request.
#include <stddef.h>
#include <stdint.h>

/// Loads libcurl.so.4, once; any thread. Returns NULL, or why it could not. Only after NULL may another function of this
/// header be called.
const char *ccurl_load(void);

/// A connection cache with its options: libcurl's easy handle. For one thread at a time. NULL when out of memory.
typedef struct ccurl_handle ccurl_handle;
ccurl_handle *ccurl_new(void);
void ccurl_free(ccurl_handle *handle);

/// How a request moves its bytes. Every function gets `context` and is called on the thread of `ccurl_perform`.
typedef struct {
    void *context;
    /// Copies at most `count` next bytes of the request's body into `buffer`; returns how many.
    size_t (*read)(void *context, void *buffer, size_t count);
    /// Takes bytes of the answer's body, whose HTTP status is `status`. Returns 0 to go on, else the request ends.
    int (*write)(void *context, long status, const void *bytes, size_t count);
    /// Takes one line of the answer's head, with its line end.
    void (*header)(void *context, const char *line, size_t count);
    /// Returns 0 to go on, else the request ends. Asked at least once a second.
    int (*stopped)(void *context);
} ccurl_transfer;

/// A transfer that moves fewer bytes a second than this counts as one that stands still: a peer that sends a byte now and
/// then must not hold a backup for ever. Any line that is worth a backup is faster.
#define CCURL_STALL_BYTES 1024L

/// What a request is.
typedef struct {
    /// GET, HEAD, PUT, POST or DELETE.
    const char *method;
    const char *url;
    /// Lines `Name: value`, separated by "\n".
    const char *headers;
    /// The size of the body, sent with PUT and POST.
    int64_t body_bytes;
    /// PEM file with the certificates to trust; NULL: the host's directory of certificates.
    const char *ca_file;
    long connect_seconds;
    /// A transfer that moves (next to) nothing for so long is given up.
    long stall_seconds;
    /// Not 0: the variables that name proxies are ignored.
    int no_proxy;
} ccurl_request;

/// What became of it.
typedef struct {
    /// A CURLcode; 0: there is an answer.
    int code;
    /// The answer's HTTP status.
    long status;
    /// libcurl's words for `code`.
    char message[256];
} ccurl_result;

void ccurl_perform(
    ccurl_handle *handle, const ccurl_request *request, const ccurl_transfer *transfer, ccurl_result *result);

// The codes that mean something to us (curl/curl.h).
extern const int ccurl_stopped_code;        // CURLE_ABORTED_BY_CALLBACK
extern const int ccurl_refused_write_code;  // CURLE_WRITE_ERROR
extern const int ccurl_timeout_code;        // CURLE_OPERATION_TIMEDOUT
extern const int ccurl_certificate_code;    // CURLE_PEER_FAILED_VERIFICATION
extern const int ccurl_ca_file_code;        // CURLE_SSL_CACERT_BADFILE
