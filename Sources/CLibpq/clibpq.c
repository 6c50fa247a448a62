#include "clibpq.h"

#include <dlfcn.h>
#include <pthread.h>
#include <stdio.h>

// The functions that are used, each once: X(name) stands for PQname.
#define FUNCTIONS(X) \
    X(connectdbParams) X(status) X(errorMessage) X(serverVersion) X(setNoticeProcessor) X(finish) \
    X(sendQueryParams) X(socket) X(consumeInput) X(flush) X(isBusy) X(getResult) X(getCancel) X(cancel) X(freeCancel) \
    X(resultStatus) X(resultErrorField) X(ntuples) X(nfields) X(getisnull) X(getvalue) X(getlength) X(clear)

static struct {
#define POINTER(name) __typeof__(PQ##name) *name;
    FUNCTIONS(POINTER)
} libpq;

static char load_error[512];

static void load(void)
{
    // Never closed: libpq's own libraries register handlers that run when the process ends.
    void *library = dlopen("libpq.so.5", RTLD_NOW | RTLD_LOCAL);
    if (!library) {
        snprintf(load_error, sizeof load_error, "%s", dlerror());
        return;
    }
#define RESOLVE(name) \
    libpq.name = (__typeof__(PQ##name) *)dlsym(library, "PQ" #name); \
    if (!libpq.name) { \
        snprintf(load_error, sizeof load_error, "%s", dlerror()); \
        return; \
    }
    FUNCTIONS(RESOLVE)
}

const char *clibpq_load(void)
{
    static pthread_once_t once = PTHREAD_ONCE_INIT;
    pthread_once(&once, load);
    return load_error[0] ? load_error : NULL;
}

PGconn *clibpq_connectdbParams(const char *const *keywords, const char *const *values, int expand_dbname)
{
    return libpq.connectdbParams(keywords, values, expand_dbname);
}

ConnStatusType clibpq_status(const PGconn *connection) { return libpq.status(connection); }

char *clibpq_errorMessage(const PGconn *connection) { return libpq.errorMessage(connection); }

int clibpq_serverVersion(const PGconn *connection) { return libpq.serverVersion(connection); }

PQnoticeProcessor clibpq_setNoticeProcessor(PGconn *connection, PQnoticeProcessor processor, void *argument)
{
    return libpq.setNoticeProcessor(connection, processor, argument);
}

void clibpq_finish(PGconn *connection) { libpq.finish(connection); }

int clibpq_sendQueryParams(
    PGconn *connection, const char *command, int parameters, const Oid *types, const char *const *values,
    const int *lengths, const int *formats, int result_format)
{
    return libpq.sendQueryParams(connection, command, parameters, types, values, lengths, formats, result_format);
}

int clibpq_socket(const PGconn *connection) { return libpq.socket(connection); }

int clibpq_consumeInput(PGconn *connection) { return libpq.consumeInput(connection); }

int clibpq_flush(PGconn *connection) { return libpq.flush(connection); }

int clibpq_isBusy(PGconn *connection) { return libpq.isBusy(connection); }

PGresult *clibpq_getResult(PGconn *connection) { return libpq.getResult(connection); }

PGcancel *clibpq_getCancel(PGconn *connection) { return libpq.getCancel(connection); }

int clibpq_cancel(PGcancel *cancel, char *error, int error_size) { return libpq.cancel(cancel, error, error_size); }

void clibpq_freeCancel(PGcancel *cancel) { libpq.freeCancel(cancel); }

ExecStatusType clibpq_resultStatus(const PGresult *result) { return libpq.resultStatus(result); }

char *clibpq_resultErrorField(const PGresult *result, int field) { return libpq.resultErrorField(result, field); }

int clibpq_ntuples(const PGresult *result) { return libpq.ntuples(result); }

int clibpq_nfields(const PGresult *result) { return libpq.nfields(result); }

int clibpq_getisnull(const PGresult *result, int row, int column) { return libpq.getisnull(result, row, column); }

char *clibpq_getvalue(const PGresult *result, int row, int column) { return libpq.getvalue(result, row, column); }

int clibpq_getlength(const PGresult *result, int row, int column) { return libpq.getlength(result, row, column); }

void clibpq_clear(PGresult *result) { libpq.clear(result); }
