// Whom the files of a local repository belong to where the superuser writes.
//
// A pin or a key slot that an administrator stores must not keep out the server's own user, who archives there and may
// read what is his alone. So what root writes is given to whom the repository's directory belongs. Where the file
// system allows that not even to root, the write fails and leaves nothing behind, but in one case:
//
//   belongs to the owner anyway           mounts that give all files to one user                      stored
//   belongs to whom kedge.json belongs    NFS with all_squash: whoever opens the repository at all    stored
//                                         reads this as well
//   belongs to anybody else               NFS with root_squash, a container without CAP_CHOWN         refused

import KedgeCore

/// The owner of a repository's directory.
struct LocalStoreOwner: Sendable {
    let user: UInt32
    let group: UInt32

    /// Nil for a directory of root's.
    init?(of root: FileStatus) {
        guard root.user != 0 else { return nil }
        (user, group) = (root.user, root.group)
    }

    /// Makes the owner that of a new file or directory, `name` in `store`. Throws `permission` where he could not use
    /// it, and what the system calls fail with.
    func take(_ file: borrowing FileDescriptor, _ name: ObjectName, of store: LocalStore) throws(KedgeError) {
        let status = try file.status()
        guard status.user != user else { return }
        do throws(KedgeError) {
            try file.setOwner(user: user, group: group)
        } catch  where error.code == .permission {
            if try isAsReadable(status, as: store.root) { return }
            throw KedgeError(
                .permission, "could not store \"\(name)\" in \(store.location) as root",
                detail:
                    "It would belong to user id \(status.user), and user id \(user), to whom the directory belongs, "
                    + "could not use it.  \(error.detail ?? "")  Nothing was stored.",
                hint: "Run the command as that user: sudo -u '#\(user)' kedge ...  Root may give nothing away on NFS "
                    + "with root_squash, and in a container without CAP_CHOWN.")
        }
    }

    /// Whether nobody can read kedge.json who could not read a file of this status with our mode.
    private func isAsReadable(_ status: FileStatus, as root: borrowing FileDescriptor) throws(KedgeError) -> Bool {
        do throws(KedgeError) {
            let marker = try FileStatus(of: LocalStore.repositoryMarker.path, in: root)
            return marker.user == status.user && marker.group == status.group && marker.mode & 0o007 == 0
        } catch  where error.code == .notFound {
            return false
        }
    }
}
