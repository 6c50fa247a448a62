// What a drill means for whoever waits for its exit status. Pure.

package import KedgeCatalog
import KedgeCore

/// What came of a drill.
package enum DrillVerdict: Hashable, Sendable {
    /// The backup restores, within the objectives.
    case proven
    /// It restores, but takes too long, or too much would have been lost.
    case objectiveMissed([String])
    /// It does not.
    case failed

    package init(_ proof: ProofRecord) {
        guard proof.result == .passed, !proof.checks.contains(where: { $0.result == .failed }) else {
            self = .failed
            return
        }
        var missed: [String] = []
        if let objectives = proof.objectives {
            if let goal = objectives.rtoSeconds, objectives.measuredSeconds > goal {
                missed.append("the restore took \(objectives.measuredSeconds) s, more than the \(goal) s of rto-target")
            }
            if let goal = objectives.rpoSeconds {
                if let lag = objectives.lagSeconds {
                    if lag > goal {
                        missed.append(
                            "the last commit that can be recovered is \(lag) s old, more than the \(goal) s of "
                                + "rpo-target")
                    }
                } else {
                    missed.append("nobody can tell how old the last commit is that can be recovered (rpo-target)")
                }
            }
        }
        self = missed.isEmpty ? .proven : .objectiveMissed(missed)
    }

    /// 3 is damage; an objective is missed without any.
    package var exitStatus: Int32 {
        switch self {
        case .proven: 0
        case .objectiveMissed: 1
        case .failed: ErrorCode.damaged.exitStatus
        }
    }
}
