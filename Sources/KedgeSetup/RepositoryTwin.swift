// Two sections of the configuration that lead to one repository, by another spelling of its path or by a link. Whatever
// is stored "everywhere" is stored once then.

import KedgeCore
import KedgeRepository

/// Two configured repositories that are the same.
struct RepositoryTwin {
    /// What is known of one that was opened.
    struct Member: Hashable {
        let name: String
        let id: RandomID
        let location: String
    }

    let first: String
    let second: String
    let error: KedgeError

    /// The first two of `members` that have the same id.
    static func find(_ members: [Member]) -> RepositoryTwin? {
        for (index, member) in members.enumerated() {
            guard let other = members[..<index].first(where: { $0.id == member.id }) else { continue }
            return RepositoryTwin(
                first: other.name, second: member.name,
                error: KedgeError(
                    .configuration,
                    "cannot use repositories \"\(other.name)\" and \"\(member.name)\": they are the same",
                    detail: "\(other.location) and \(member.location) have the same id, \(member.id).",
                    hint: "Give each a place of its own, or remove one.  A copy of a repository is no second one: let "
                        + "\"kedge init\" make that, in an empty place."))
        }
        return nil
    }
}

extension Repository {
    /// What tells this repository from another.
    var twin: RepositoryTwin.Member {
        RepositoryTwin.Member(name: name, id: identity.id, location: store.location)
    }
}
