"""Lookup: what the name servers that the machine uses say of a name (resolv.conf(5)).

A name is taken as it is: no search list makes another of it.
"""

import dns.asyncresolver
import dns.exception
import dns.resolver

from nginx_config_renderer.names import PATIENCE, Found, Missing, Unanswered


async def look_up(name: str, resolver: dns.asyncresolver.Resolver | None) -> Found:
    """The addresses of `name`, by the machine's name servers if no others are given. Raises Missing, Unanswered."""
    try:
        asked = resolver or dns.asyncresolver.Resolver()
        for kind in ("A", "AAAA"):
            answer = await asked.resolve(f"{name}.", kind, lifetime=PATIENCE, raise_on_no_answer=False)
            if answer.rrset is not None:
                addresses = tuple(sorted(str(record.address) for record in answer.rrset))
                return Found(addresses, float(answer.chaining_result.minimum_ttl))
    except dns.resolver.NXDOMAIN:
        raise Missing(f"{name} does not exist; correct spec.externalName, or create the name") from None
    except (dns.exception.DNSException, OSError) as error:
        raise Unanswered(f"{name} cannot be looked up now: {str(error)[:200]}") from error
    raise Missing(f"{name} has no address; give it one")
