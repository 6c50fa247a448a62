// How long each phase of a drill took. Phases follow one another; what lies between them belongs to none.

import KedgeCatalog
import KedgeCore

/// Measures phases. Used by one thread at a time.
final class PhaseClock {
    private let time: any TimeSource
    private(set) var phases: [ProofRecord.Phase] = []
    private var name: String?
    private var began: UInt64 = 0

    init(_ time: any TimeSource) { self.time = time }

    /// Begins a phase; one that runs ends.
    func begin(_ name: String) {
        end()
        self.name = name
        began = time.monotonicNanoseconds()
    }

    /// Ends the phase that runs, if one does. `bytes`: what went through it.
    func end(bytes: UInt64? = nil) { end(at: time.monotonicNanoseconds(), bytes: bytes) }

    /// The running phase ended at that moment, and the next began; nothing where there was no such moment.
    func split(at moment: UInt64?, into next: String) {
        guard let moment, name != nil, moment >= began else { return }
        end(at: moment, bytes: nil)
        name = next
        began = moment
    }

    private func end(at moment: UInt64, bytes: UInt64?) {
        guard let name else { return }
        phases.append(
            ProofRecord.Phase(name: name, milliseconds: (moment - min(began, moment)) / 1_000_000, bytes: bytes))
        self.name = nil
    }

    /// What somebody who needs the data would have waited: everything but the checks.
    var restoreMilliseconds: UInt64 {
        phases.filter { $0.name != "checks" }.reduce(0) { $0 + $1.milliseconds }
    }
}
