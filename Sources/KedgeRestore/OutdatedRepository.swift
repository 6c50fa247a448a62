// A repository that this host knows in a newer state, or in whose place it knows another one.
//
// It serves what it has, and proves no absence (docs/decisions/0012, 0023). But every recovery ends with files that are
// absent, the next segment or the next timeline's history: archive-get ends it with an error there, and the server does
// not start. So such a repository serves no restore as one that can't be read at all serves none.

import KedgeCore
import KedgeRepository

extension Restore.Options {
    /// Throws where a server that is restored as these options say could not recover with `repository`: the error that
    /// archive-get would end with.
    func requireAbsenceProven(by repository: Repository) throws(KedgeError) {
        // A standby is told that the file is absent, and asks again.
        guard var error = repository.outdated, !request.standby, !takesUnavailableForAbsent else { return }
        let why = "A recovery ends with files that are missing, and with this repository it would end with an error."
        error.detail = error.detail.map { "\($0)  \(why)" } ?? why
        throw error
    }
}
