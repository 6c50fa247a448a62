// What this host remembers of repositories' data keys: a small file in the work-directory for each repository.
//
// archive-push reads it each time it starts, and writes it only when there is something newer. A work-directory that
// can't be used is no reason not to archive: it is reported, and nothing is known then. But what is known is never
// passed over.
import KedgeCodec
import KedgeCore
import KedgeRepository

/// Notes of the newest data key, in every work-directory of the clusters that use a repository.
struct KeyNotes: KeyMemory {
    private let directories: [String]
    private let user: UInt32
    private let random: any RandomSource
    private let warn: @Sendable (String) -> Void

    /// `user` is our effective user id: what belongs to anybody else is not believed.
    init(
        in directories: [String], user: UInt32, random: any RandomSource, warn: @escaping @Sendable (String) -> Void
    ) {
        self.directories = directories
        self.user = user
        self.random = random
        self.warn = warn
    }

    func location(of repository: RandomID) -> String {
        directories.map { "\"\(path(repository, in: $0))\"" }.joined(separator: " and ")
    }

    func newestKey(of repository: RandomID) -> KeyVersion? {
        directories.compactMap { noted(repository, in: $0) }.max()
    }

    func remember(_ key: KeyVersion, of repository: RandomID) {
        let note: JSONValue = [
            "kedge": "newest-key", "repository": .string(repository.hex), "sequence": .int(key.sequence),
            "key": .string(key.id.hex),
        ]
        for directory in directories {
            if let known = noted(repository, in: directory), known >= key { continue }
            do throws(KedgeError) {
                try WorkDirectory.prepare(directory, user: user)
            } catch {
                warnOfDirectory(error)
                continue
            }
            do throws(KedgeError) {
                _ = try DurableFile.write(
                    Array((note.compactText + "\n").utf8), to: RawPath(path(repository, in: directory)), mode: 0o600,
                    replacing: true, random: random)
            } catch {
                warn(
                    "could not remember the newest data key of repository \(repository) in work-directory "
                        + "\"\(directory)\": \(error.message)\(error.detail.map { ": " + $0 } ?? "")")
            }
        }
    }

    /// In the same words whatever the directory was wanted for: one warning is enough.
    private func warnOfDirectory(_ error: KedgeError) {
        warn("no note of the newest data key is read or kept: \(error.message)\(error.detail.map { ": " + $0 } ?? "")")
    }

    private func path(_ repository: RandomID, in directory: String) -> String {
        "\(directory)/newest-key-\(repository.hex)"
    }

    private func noted(_ repository: RandomID, in directory: String) -> KeyVersion? {
        let path = path(repository, in: directory)
        do throws(KedgeError) {
            guard try WorkDirectory.exists(directory, user: user) else { return nil }
        } catch {
            warnOfDirectory(error)
            return nil
        }
        do throws(KedgeError) {
            // What lies in a directory of our own was put there by us, and opening it can't hang.
            let bytes = try FileDescriptor.open(RawPath(path), [.read, .noFollow]).readAll(limit: 4096)
            let record = try JSONRecord(parsing: bytes, what: "note \"\(path)\"")
            try record.expectType("newest-key")
            guard try record.string("repository") == repository.hex else {
                throw record.invalid("repository", "is another one")
            }
            return KeyVersion(
                sequence: try record.integer("sequence"), id: try record.parsed("key") { RandomID(hex: $0) })
        } catch {
            if error.code != .notFound {
                warn(
                    "could not read which data key was the newest: \(error.message)"
                        + "\(error.detail.map { ": " + $0 } ?? "")")
            }
            return nil
        }
    }
}
