// The list of what was looked at: every check runs through here, so that each is timed and told alike.

package import KedgeCatalog
package import KedgeCore

/// What one look gave.
enum Finding {
    case passed(String? = nil)
    /// The backup, its WAL or what they hold is not as it should be.
    case failed(String)
    /// Not the backup's fault, but somebody should know.
    case warning(String)
    case skipped(String)
}

/// Collects the checks of one drill. Used by one thread at a time.
package final class CheckList {
    private let time: any TimeSource
    private var passes: [(name: String, count: Int, milliseconds: UInt64, detail: String?)] = []
    private var others: [ProofRecord.Check] = []
    /// A record is for reading: of one name and result so many entries are listed. Failures have a share of their own,
    /// so that no number of warnings hides one.
    private static let limit = 100
    private var omitted: [Omission: Int] = [:]

    private struct Omission: Hashable {
        let name: String
        let result: ProofRecord.Check.Result
    }

    package init(time: any TimeSource) { self.time = time }

    /// Whether a check failed, listed or not.
    package private(set) var hasFailed = false

    /// Runs one look at `subject`. An error of the database is a failed check; any other error is thrown.
    func run(
        _ name: String, _ subject: String? = nil, _ look: () throws(KedgeError) -> Finding
    ) throws(KedgeError) {
        let start = time.monotonicNanoseconds()
        let finding: Finding
        do throws(KedgeError) {
            finding = try look()
        } catch {
            finding = try CheckList.finding(for: error)
        }
        add(name, on: subject, finding, milliseconds: (time.monotonicNanoseconds() - start) / 1_000_000)
    }

    /// Throws what says nothing about the backup.
    static func finding(for error: KedgeError) throws(KedgeError) -> Finding {
        switch error.code {
        case .databaseRefused, .databaseUnavailable:
            // disk_full and out_of_memory (src/backend/utils/errcodes.txt).
            for state in ["53100", "53200"] where error.detail?.contains("SQLSTATE \(state)") == true {
                throw KedgeError(
                    .noSpace, error.message, detail: error.detail,
                    hint: "Free space or memory for the drill, then run it again.")
            }
            if let lack = HostLack.error(for: error) { throw lack }
            return .failed(error.detail ?? error.message)
        default: throw error
        }
    }

    func add(_ name: String, on subject: String? = nil, _ finding: Finding, milliseconds: UInt64 = 0) {
        let (result, detail): (ProofRecord.Check.Result, String?) =
            switch finding {
            case .passed(let detail): (.passed, detail)
            case .failed(let detail): (.failed, detail)
            case .warning(let detail): (.warning, detail)
            case .skipped(let detail): (.skipped, detail)
            }
        if result == .passed {
            let index = passes.firstIndex { $0.name == name }
            if let index {
                passes[index].count += 1
                passes[index].milliseconds += milliseconds
                passes[index].detail = passes[index].detail ?? detail
            } else {
                passes.append((name, 1, milliseconds, detail))
            }
            return
        }
        if result == .failed { hasFailed = true }
        guard others.count(where: { $0.name == name && $0.result == result }) < CheckList.limit else {
            omitted[Omission(name: name, result: result), default: 0] += 1
            return
        }
        others.append(
            ProofRecord.Check(
                name: name, result: result, subject: subject, detail: detail, milliseconds: milliseconds))
    }

    /// What passed, one entry a name, then everything else.
    package var checks: [ProofRecord.Check] {
        let passed = passes.map { pass in
            ProofRecord.Check(
                name: pass.name, result: .passed, subject: nil,
                detail: pass.detail ?? (pass.count > 1 ? "\(pass.count) times" : nil),
                milliseconds: pass.milliseconds)
        }
        let more = omitted.map { omission, count in
            ProofRecord.Check(
                name: omission.name, result: omission.result, detail: "\(count) more are not listed.")
        }.sorted { ($0.name, $0.result.rawValue) < ($1.name, $1.result.rawValue) }
        return passed + others + more
    }
}
