// Files that were put off: histories and their like that wait in the spool for the repositories (QueueLimit.swift).
//
// 1. PostgreSQL was told that they are archived, so a copy is removed only when every repository has the file.
// 2. A copy is of one database system, which its name says, and is stored for no other: a history under the wrong
//    system would be a branch that never was.
// 3. Two of one name and system never replace each other: the second is refused, as a repository would refuse it.

package import KedgeCore

/// A file that was put off.
package struct PutOffCopy: Hashable, Sendable {
    package let file: WALFileName
    /// The database system that it is of. Nil for what kedge 0.1.0 put off while it was developed: it did not say.
    package let system: SystemIdentifier?

    init(_ file: WALFileName, of system: SystemIdentifier) {
        self.file = file
        self.system = system
    }

    /// The copy that a file of the spool is by its name; nil for a stranger.
    init?(spoolName name: String) {
        if let file = WALFileName(name) {
            self.file = file
            system = nil
            return
        }
        let parts = name.split(separator: "-", maxSplits: 1, omittingEmptySubsequences: false)
        guard parts.count == 2, let system = SystemIdentifier(parts[0]), let file = WALFileName(String(parts[1])) else {
            return nil
        }
        self.file = file
        self.system = system
        guard spoolName == name else { return nil }
    }

    /// Its name in the spool.
    package var spoolName: String { system.map { "\($0)-\(file.text)" } ?? file.text }
}

extension Spool {
    /// What was put off and is not in every repository, sorted by file name.
    package var putOff: [PutOffCopy] {
        names(in: .putOff).compactMap { PutOffCopy(spoolName: $0) }
            .sorted { ($0.file.text, $0.spoolName) < ($1.file.text, $1.spoolName) }
    }

    /// Where a copy lies.
    package func path(of copy: PutOffCopy) -> RawPath { path(.putOff).appending(copy.spoolName) }

    /// Makes a copy of a file with these bytes durable, or the one that is there already. Throws `archive-conflict`
    /// where that one has other bytes, and what writing throws.
    func keep(_ bytes: [UInt8], as copy: PutOffCopy) throws(KedgeError) {
        guard try writeDurably(bytes: bytes, as: copy.spoolName, in: .putOff, replacing: false) == .alreadyExists else {
            return
        }
        let path = path(of: copy)
        guard try FileDescriptor.open(path, [.read, .noFollow]).holds(bytes) == false else { return }
        throw KedgeError(
            .archiveConflict,
            "cannot put off WAL file \"\(copy.file.text)\": the work directory holds other content under this name",
            detail: "What was put off and acknowledged earlier waits in \"\(path)\" for the repositories.",
            hint: "Find out which two servers of this database system use this work directory, and compare the two "
                + "files.  Nothing was changed.")
    }
}

extension FileDescriptor {
    /// Whether the file has these bytes and no others.
    func holds(_ bytes: [UInt8]) throws(KedgeError) -> Bool {
        guard try status().sizeBytes == UInt64(bytes.count) else { return false }
        return try read(count: bytes.count, at: 0) == bytes
    }
}
