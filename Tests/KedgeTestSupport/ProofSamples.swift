// Proofs as values, for tests of what counts as evidence.
package import KedgeCatalog
package import KedgeCore

extension ProofRecord {
    /// A full proof that passed, of the backup and repository given.
    package static func sample(
        of backup: CommitRecord, in repositoryID: RandomID, level: ProofLevel = .verified,
        result: ProofResult = .passed, finished: Timestamp, partsPerMillion: UInt32 = VerifiedObjects.everything
    ) -> ProofRecord {
        ProofRecord(
            label: backup.label, level: level, result: result, repositoryName: "main", repositoryID: repositoryID,
            manifest: backup.manifest, started: finished.adding(seconds: -60), finished: finished, hostName: "db1",
            createdBy: "kedge",
            covers: result == .failed
                ? nil
                : Coverage(
                    timeline: backup.span.timeline, fromLSN: backup.span.startLSN, toLSN: backup.span.stopLSN,
                    toTime: backup.span.stopTime),
            verified: level == .drilled
                ? nil
                : VerifiedObjects(
                    systemIdentifier: backup.server.systemIdentifier, packs: [], wal: [],
                    partsPerMillion: partsPerMillion))
    }
}

extension ProofCatalog {
    /// Stores a proof with the end that it has, as one host alone does whose clock is right.
    @discardableResult
    package func put(_ proof: ProofRecord) throws(KedgeError) -> ProofRecord { try put(proof, after: nil) }
}
