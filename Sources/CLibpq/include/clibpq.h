#pragma once
// libpq, loaded on first use: most runs of kedge talk to no database, and linking libpq and what it needs would cost
// each of them some 3 ms (docs/decisions/0001-one-static-binary.md). Types come from libpq's own header; functions have
// the names of libpq's with another prefix, so that nothing of ours can be taken for libpq's by the dynamic linker.
#include <postgresql/libpq-fe.h>

/// Loads libpq.so.5, once; any thread. Returns NULL, or the dynamic linker's message. Only after NULL may another function
/// of this header be called.
const char *clibpq_load(void);

PGconn *clibpq_connectdbParams(const char *const *keywords, const char *const *values, int expand_dbname);
ConnStatusType clibpq_status(const PGconn *connection);
char *clibpq_errorMessage(const PGconn *connection);
int clibpq_serverVersion(const PGconn *connection);
PQnoticeProcessor clibpq_setNoticeProcessor(PGconn *connection, PQnoticeProcessor processor, void *argument);
void clibpq_finish(PGconn *connection);

int clibpq_sendQueryParams(
    PGconn *connection, const char *command, int parameters, const Oid *types, const char *const *values,
    const int *lengths, const int *formats, int result_format);
int clibpq_socket(const PGconn *connection);
int clibpq_consumeInput(PGconn *connection);
int clibpq_flush(PGconn *connection);
int clibpq_isBusy(PGconn *connection);
PGresult *clibpq_getResult(PGconn *connection);
PGcancel *clibpq_getCancel(PGconn *connection);
int clibpq_cancel(PGcancel *cancel, char *error, int error_size);
void clibpq_freeCancel(PGcancel *cancel);

ExecStatusType clibpq_resultStatus(const PGresult *result);
char *clibpq_resultErrorField(const PGresult *result, int field);
int clibpq_ntuples(const PGresult *result);
int clibpq_nfields(const PGresult *result);
int clibpq_getisnull(const PGresult *result, int row, int column);
char *clibpq_getvalue(const PGresult *result, int row, int column);
int clibpq_getlength(const PGresult *result, int row, int column);
void clibpq_clear(PGresult *result);

// Macros with character values, which Swift does not import as Int32.
enum {
    CLIBPQ_SEVERITY = PG_DIAG_SEVERITY,
    CLIBPQ_SQLSTATE = PG_DIAG_SQLSTATE,
    CLIBPQ_MESSAGE = PG_DIAG_MESSAGE_PRIMARY,
    CLIBPQ_DETAIL = PG_DIAG_MESSAGE_DETAIL,
    CLIBPQ_HINT = PG_DIAG_MESSAGE_HINT,
};
