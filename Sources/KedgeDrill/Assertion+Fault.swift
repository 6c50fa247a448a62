// What is wrong with a check file itself, which says nothing about the backup. Pure.

package import KedgeCore

extension Assertion {
    /// The error to end a drill with where `error` came because the statement is none, or because of a \connect to a
    /// database that does not exist; nil where it may come from what was restored, as a lost table may.
    ///
    /// SQLSTATE 42601 is syntax_error (src/backend/utils/errcodes.txt); a refused connection has no SQLSTATE in libpq,
    /// only the words of src/backend/utils/init/postinit.c under `lc_messages = C`.
    package func fault(_ error: KedgeError) -> KedgeError? {
        guard let detail = error.detail else { return nil }
        if error.code == .databaseRefused, detail.contains("SQLSTATE 42601") {
            return KedgeError(
                .configuration, "cannot use the check in line \(line) of drill-check: it is not SQL", detail: detail,
                hint: "Correct the file, then drill again.  This drill proves nothing, and stored no proof.")
        }
        if let database, error.code == .databaseUnavailable,
            detail.contains("database \"\(database)\" does not exist")
        {
            return KedgeError(
                .configuration,
                "cannot use the check in line \(line) of drill-check: there is no database \"\(database)\"",
                detail: detail,
                hint: "Correct \"\\connect\" in the file, or drill to a moment at which the database existed.  This "
                    + "drill proves nothing, and stored no proof.")
        }
        return nil
    }
}
