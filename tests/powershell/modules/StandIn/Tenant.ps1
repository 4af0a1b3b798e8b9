# What a tenant has beside connectors and rules: read only here, but for the ARC list.

function Select-StandInRow {
    param($call, $Rows, [string]$What)
    $found = $Rows
    if ($call.Given.ContainsKey('Identity')) { $found = @(Find-StandInObject -List $Rows -Identity $call.Given['Identity'] -What $What) }
    foreach ($one in $found) { Show-StandInObject -Tenant $call.Tenant -Stored $one }
}

$script:Handlers['Get-AcceptedDomain'] = {
    param($call)
    $rows = @($call.Tenant.AcceptedDomains | ForEach-Object {
        [ordered]@{ Name = $_; Identity = $_; DomainName = $_; DomainType = 'Authoritative'; Default = ($_ -eq @($call.Tenant.AcceptedDomains)[0]); InitialDomain = ($_ -eq $call.Tenant.Organization); MatchSubDomains = $false }
    })
    Select-StandInRow -call $call -Rows $rows -What 'accepted domain'
}

$script:Handlers['Get-OrganizationConfig'] = { param($call) Show-StandInObject -Tenant $call.Tenant -Stored $call.Tenant.OrganizationConfig }
$script:Handlers['Get-TransportConfig'] = { param($call) Show-StandInObject -Tenant $call.Tenant -Stored $call.Tenant.TransportConfig }
$script:Handlers['Get-HostedConnectionFilterPolicy'] = { param($call) Select-StandInRow -call $call -Rows $call.Tenant.FilterPolicies -What 'connection filter policy' }
$script:Handlers['Get-RemoteDomain'] = { param($call) Select-StandInRow -call $call -Rows $call.Tenant.RemoteDomains -What 'remote domain' }
$script:Handlers['Get-DkimSigningConfig'] = { param($call) Select-StandInRow -call $call -Rows $call.Tenant.Dkim -What 'DKIM configuration' }
$script:Handlers['Get-OnPremisesOrganization'] = { param($call) Select-StandInRow -call $call -Rows $call.Tenant.OnPremises -What 'on-premises organization' }
$script:Handlers['Get-IntraOrganizationConnector'] = { param($call) Select-StandInRow -call $call -Rows $call.Tenant.IntraOrganization -What 'intra-organization connector' }
$script:Handlers['Get-BlockedConnector'] = { param($call) foreach ($one in $call.Tenant.Blocked) { Show-StandInObject -Tenant $call.Tenant -Stored $one } }
$script:Handlers['Get-ManagementRoleAssignment'] = {
    param($call)
    foreach ($one in $call.Tenant.RoleAssignments) {
        if ($call.Given.ContainsKey('Role') -and $one['Role'] -ne $call.Given['Role']) { continue }
        Show-StandInObject -Tenant $call.Tenant -Stored $one
    }
}
$script:Handlers['New-DistributionGroup'] = {
    param($call)
    $address = [string]$call.Given['PrimarySmtpAddress']
    $group = New-StandInGroup -Name $call.Given['Name'] -Address $address -Members @($call.Given['Members'])
    [void]$call.Tenant.Groups.Add($group)
    Show-StandInObject -Tenant $call.Tenant -Stored $group
}
$script:Handlers['Get-DistributionGroup'] = {
    param($call)
    if ($call.Given.ContainsKey('Identity')) { return (Show-StandInObject -Tenant $call.Tenant -Stored (Find-StandInGroup -Tenant $call.Tenant -Identity $call.Given['Identity'])) }
    foreach ($one in $call.Tenant.Groups) { Show-StandInObject -Tenant $call.Tenant -Stored $one }
}
$script:Handlers['Get-DistributionGroupMember'] = {
    param($call)
    $group = Find-StandInGroup -Tenant $call.Tenant -Identity $call.Given['Identity']
    foreach ($one in @($group['Members'])) { [pscustomobject]@{ Name = $one; PrimarySmtpAddress = $one; RecipientType = 'UserMailbox' } }
}
$script:Handlers['Get-Recipient'] = {
    param($call)
    $rows = @($call.Tenant.Users | ForEach-Object { [ordered]@{ Name = $_; Identity = $_; PrimarySmtpAddress = $_; RecipientType = 'UserMailbox'; RecipientTypeDetails = 'UserMailbox' } })
    foreach ($one in $call.Tenant.Groups) { $rows += , ([ordered]@{ Name = $one['PrimarySmtpAddress']; Identity = $one['Name']; PrimarySmtpAddress = $one['PrimarySmtpAddress']; RecipientType = $one['RecipientType']; RecipientTypeDetails = $one['RecipientTypeDetails'] }) }
    Select-StandInRow -call $call -Rows $rows -What 'recipient'
}

# One list for the tenant, shown as one text; a single space empties it.
$script:Handlers['Get-ArcConfig'] = { param($call) [pscustomobject]@{ Identity = 'Default'; Name = 'Default'; ArcTrustedSealers = (@($call.Tenant.Arc) -join ','); IsValid = $true } }
$script:Handlers['Set-ArcConfig'] = {
    param($call)
    if ($call.Given['Identity'] -ne 'Default') { throw (New-StandInFailure -Kind 'ManagementObjectNotFoundException' -Message "The configuration '$($call.Given['Identity'])' couldn't be found: it is called Default.") }
    $given = @($call.Given['ArcTrustedSealers'])
    if ($given.Count -eq 0 -or ($given.Count -eq 1 -and '' -eq [string]$given[0])) {
        throw (New-StandInFailure -Kind 'ParameterBindingValidation' -Message "ArcTrustedSealers is empty: ' ' empties the list")
    }
    $names = @(($given -join ',') -split ',' | ForEach-Object { $_.Trim() } | Where-Object { $_ })
    foreach ($name in $names) {
        if ($name -notmatch '^[A-Za-z0-9]([A-Za-z0-9-]*[A-Za-z0-9])?(\.[A-Za-z0-9]([A-Za-z0-9-]*[A-Za-z0-9])?)+$') {
            throw (New-StandInFailure -Kind 'ParameterBindingValidation' -Message "'$name' is not a domain")
        }
    }
    $call.Tenant.Arc = $names
}
