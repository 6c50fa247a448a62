// What a cluster's section says about drills.

/// The keys for `kedge drill`.
package struct DrillConfiguration: Sendable {
    /// Nil where none is configured.
    package let directory: String?
    /// `sample`, `full` or `off`.
    package let amcheck: String
    package let checkFile: String?
    /// As it was written.
    package let settings: String?
    package let recoveryTimeObjective: Duration?
    package let recoveryPointObjective: Duration?

    init(_ section: LayeredSection) {
        directory = section.text("drill-directory")
        amcheck = section.text("drill-amcheck") ?? "sample"
        checkFile = section.text("drill-check")
        settings = section.text("drill-set")
        recoveryTimeObjective = section.optionalDuration("rto-target")
        recoveryPointObjective = section.optionalDuration("rpo-target")
    }
}
