#include "ccurl.h"

#include <curl/curl.h>
#include <dlfcn.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

const int ccurl_stopped_code = CURLE_ABORTED_BY_CALLBACK;
const int ccurl_refused_write_code = CURLE_WRITE_ERROR;
const int ccurl_timeout_code = CURLE_OPERATION_TIMEDOUT;
const int ccurl_certificate_code = CURLE_PEER_FAILED_VERIFICATION;
const int ccurl_ca_file_code = CURLE_SSL_CACERT_BADFILE;

// The header wraps its variadic functions in macros that check types; a pointer of that name would be called through them.
#undef curl_easy_setopt
#undef curl_easy_getinfo

// The functions that are used, each once: X(name) stands for curl_name.
#define FUNCTIONS(X) \
    X(global_init) X(easy_init) X(easy_setopt) X(easy_perform) X(easy_getinfo) X(easy_reset) X(easy_cleanup) \
    X(easy_strerror) X(slist_append) X(slist_free_all)

static struct {
#define POINTER(name) __typeof__(curl_##name) *name;
    FUNCTIONS(POINTER)
} curl;

static char load_error[512];

static void load(void)
{
    // Never closed: the libraries below it register handlers that run when the process ends.
    void *library = dlopen("libcurl.so.4", RTLD_NOW | RTLD_LOCAL);
    if (!library) {
        snprintf(load_error, sizeof load_error, "%s", dlerror());
        return;
    }
#define RESOLVE(name) \
    curl.name = (__typeof__(curl_##name) *)dlsym(library, "curl_" #name); \
    if (!curl.name) { \
        snprintf(load_error, sizeof load_error, "%s", dlerror()); \
        return; \
    }
    FUNCTIONS(RESOLVE)
    CURLcode code = curl.global_init(CURL_GLOBAL_DEFAULT);
    if (code != CURLE_OK)
        snprintf(load_error, sizeof load_error, "libcurl could not be set up: %s", curl.easy_strerror(code));
}

const char *ccurl_load(void)
{
    static pthread_once_t once = PTHREAD_ONCE_INIT;
    pthread_once(&once, load);
    return load_error[0] ? load_error : NULL;
}

struct ccurl_handle {
    CURL *easy;
    // Of the request under way.
    const ccurl_transfer *transfer;
};

ccurl_handle *ccurl_new(void)
{
    ccurl_handle *handle = calloc(1, sizeof *handle);
    if (!handle) return NULL;
    handle->easy = curl.easy_init();
    if (!handle->easy) {
        free(handle);
        return NULL;
    }
    return handle;
}

void ccurl_free(ccurl_handle *handle)
{
    if (!handle) return;
    curl.easy_cleanup(handle->easy);
    free(handle);
}

static size_t read_body(char *buffer, size_t size, size_t count, void *user)
{
    ccurl_handle *handle = user;
    return handle->transfer->read(handle->transfer->context, buffer, size * count);
}

static size_t write_body(char *bytes, size_t size, size_t count, void *user)
{
    ccurl_handle *handle = user;
    long status = 0;
    curl.easy_getinfo(handle->easy, CURLINFO_RESPONSE_CODE, &status);
    // Any other number than that of the bytes ends the request.
    return handle->transfer->write(handle->transfer->context, status, bytes, size * count) ? 0 : size * count;
}

static size_t take_header(char *line, size_t size, size_t count, void *user)
{
    ccurl_handle *handle = user;
    handle->transfer->header(handle->transfer->context, line, size * count);
    return size * count;
}

static int look_around(void *user, curl_off_t a, curl_off_t b, curl_off_t c, curl_off_t d)
{
    (void)a, (void)b, (void)c, (void)d;
    ccurl_handle *handle = user;
    return handle->transfer->stopped(handle->transfer->context);
}

// Returns the list with one entry for each line of `headers`, and the two that libcurl must not add by itself; NULL when out
// of memory.
static struct curl_slist *header_list(const char *headers)
{
    struct curl_slist *list = NULL;
    char *copy = strdup(headers);
    if (!copy) return NULL;
    char *rest = copy;
    for (char *line; (line = strsep(&rest, "\n"));) {
        if (!*line) continue;
        struct curl_slist *longer = curl.slist_append(list, line);
        if (!longer) {
            curl.slist_free_all(list);
            free(copy);
            return NULL;
        }
        list = longer;
    }
    free(copy);
    // A body waits for no leave: our bodies are bounded, and one more round trip costs more.
    struct curl_slist *longer = curl.slist_append(list, "Expect:");
    if (!longer) curl.slist_free_all(list);
    return longer;
}

static CURLcode set_options(ccurl_handle *handle, const ccurl_request *request, struct curl_slist *headers, char *message)
{
    CURLcode code = CURLE_OK;
#define SET(option, value) \
    if (code == CURLE_OK) code = curl.easy_setopt(handle->easy, option, value)
    SET(CURLOPT_ERRORBUFFER, message);
    SET(CURLOPT_NOSIGNAL, 1L);
    SET(CURLOPT_URL, request->url);
    SET(CURLOPT_PROTOCOLS_STR, "http,https");
    SET(CURLOPT_HTTPHEADER, headers);
    SET(CURLOPT_HTTP_VERSION, (long)CURL_HTTP_VERSION_1_1);
    // Object names are what they are: "." and ".." can't be in them, and nothing may be rewritten after it was signed.
    SET(CURLOPT_PATH_AS_IS, 1L);
    SET(CURLOPT_FOLLOWLOCATION, 0L);
    SET(CURLOPT_NETRC, (long)CURL_NETRC_IGNORED);
    SET(CURLOPT_CONNECTTIMEOUT, request->connect_seconds);
    SET(CURLOPT_LOW_SPEED_LIMIT, CCURL_STALL_BYTES);
    SET(CURLOPT_LOW_SPEED_TIME, request->stall_seconds);
    if (request->no_proxy) SET(CURLOPT_NOPROXY, "*");
    SET(CURLOPT_TCP_KEEPALIVE, 1L);
    SET(CURLOPT_SSLVERSION, (long)CURL_SSLVERSION_TLSv1_2);
    SET(CURLOPT_SSL_VERIFYPEER, 1L);
    SET(CURLOPT_SSL_VERIFYHOST, 2L);
    // Parsing the whole bundle of trusted certificates would cost each process 17 ms; the directory is looked up by name.
    SET(CURLOPT_CAINFO, request->ca_file);
    SET(CURLOPT_CAPATH, request->ca_file ? NULL : "/etc/ssl/certs");
    SET(CURLOPT_BUFFERSIZE, 256L << 10);
    SET(CURLOPT_UPLOAD_BUFFERSIZE, 256L << 10);
    SET(CURLOPT_READFUNCTION, read_body);
    SET(CURLOPT_READDATA, handle);
    // No CURLOPT_SEEKFUNCTION: without one libcurl can't send a body again when a kept connection breaks before any
    // answer. The server may have done what it was asked to, so whoever asks has to know.
    SET(CURLOPT_WRITEFUNCTION, write_body);
    SET(CURLOPT_WRITEDATA, handle);
    SET(CURLOPT_HEADERFUNCTION, take_header);
    SET(CURLOPT_HEADERDATA, handle);
    SET(CURLOPT_XFERINFOFUNCTION, look_around);
    SET(CURLOPT_XFERINFODATA, handle);
    SET(CURLOPT_NOPROGRESS, 0L);
    if (!strcmp(request->method, "PUT")) {
        SET(CURLOPT_UPLOAD, 1L);
        SET(CURLOPT_INFILESIZE_LARGE, (curl_off_t)request->body_bytes);
    } else if (!strcmp(request->method, "POST")) {
        SET(CURLOPT_POST, 1L);
        SET(CURLOPT_POSTFIELDSIZE_LARGE, (curl_off_t)request->body_bytes);
    } else if (!strcmp(request->method, "HEAD")) {
        SET(CURLOPT_NOBODY, 1L);
    } else if (!strcmp(request->method, "GET")) {
        SET(CURLOPT_HTTPGET, 1L);
    } else {
        SET(CURLOPT_CUSTOMREQUEST, request->method);
    }
    return code;
}

void ccurl_perform(
    ccurl_handle *handle, const ccurl_request *request, const ccurl_transfer *transfer, ccurl_result *result)
{
    memset(result, 0, sizeof *result);
    char message[CURL_ERROR_SIZE] = "";
    handle->transfer = transfer;
    // Options go, connections stay.
    curl.easy_reset(handle->easy);
    struct curl_slist *headers = header_list(request->headers);
    CURLcode code = headers ? set_options(handle, request, headers, message) : CURLE_OUT_OF_MEMORY;
    if (code == CURLE_OK) code = curl.easy_perform(handle->easy);
    if (code == CURLE_OK) curl.easy_getinfo(handle->easy, CURLINFO_RESPONSE_CODE, &result->status);
    result->code = code;
    snprintf(result->message, sizeof result->message, "%s", message[0] ? message : curl.easy_strerror(code));
    // Nothing of this call may be looked at later.
    curl.easy_setopt(handle->easy, CURLOPT_ERRORBUFFER, NULL);
    curl.easy_setopt(handle->easy, CURLOPT_HTTPHEADER, NULL);
    curl.slist_free_all(headers);
    handle->transfer = NULL;
}
