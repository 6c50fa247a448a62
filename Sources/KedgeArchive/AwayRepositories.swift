// Which repositories are away: those that failed, or hung, when they were last asked to take a WAL file.
//
// Above archive-queue-limit a segment is stored in the repositories that work before it is given up for the others, and
// a repository that hangs must not be asked once more for each segment: pg_wal would fill.
//
// 1. The note is made before a repository is asked, its secret's command included, and goes when it has answered: so
//    one that hung until the push was ended is known to the next push.
// 2. A note only keeps from asking first above the limit. It counts for ten minutes, and a push below the limit asks
//    every repository whatever is noted.

import KedgeCodec
package import KedgeCore

extension Spool {
    /// Notes that a repository is asked: it counts as away until it has answered.
    package func noteAway(_ repository: String, at now: Timestamp) {
        do throws(KedgeError) {
            let record: JSONValue = [
                "kedge": "away", "repository": .string(repository), "since": .string(now.description),
            ]
            try write(record, as: awayName(repository), in: .away)
        } catch {
            // It will be asked once more than it needs.
        }
    }

    /// Notes that a repository has answered.
    package func noteAnswer(of repository: String) { remove([awayName(repository)], in: .away) }

    /// Whether a repository was found away in the last ten minutes.
    package func isAway(_ repository: String, at now: Timestamp) -> Bool {
        guard let record = read(awayName(repository), in: .away) else { return false }
        do throws(KedgeError) {
            try record.expectType("away")
            let since = try record.parsed("since") { Timestamp(record: $0) }
            return try record.string("repository") == repository && since <= now && now < since.adding(seconds: 600)
        } catch {
            return false
        }
    }

    /// Any name can be that of a repository, but not that of a file.
    private func awayName(_ repository: String) -> String { ContentHash(of: Array(repository.utf8)).hex }
}
