# What a test does to the tenants: none of these writes into the log of calls.

# An empty world: no tenant, no connection, no fault, the clock at the real time.
function Reset-StandIn {
    $script:World = @{
        Clock = (ConvertTo-StandInUtc ([datetime]::UtcNow)); Tenants = [ordered]@{}; Connections = New-Object System.Collections.ArrayList
        Calls = New-Object System.Collections.ArrayList; Faults = New-Object System.Collections.ArrayList; Opened = 0
        Windows = $false; SignsIn = ''; Validation = @{ Connect = $true; Send = $true; Text = ''; TraceStatus = 'Delivered'; Events = @() }
    }
    Update-StandInModule
}

function New-StandInGroup {
    param([string]$Name, [string]$Address, [string[]]$Members)
    [ordered]@{
        Name = $Name; Alias = ($Address -split '@')[0]; DisplayName = $Name; Identity = $Address; PrimarySmtpAddress = $Address
        Guid = [guid]::NewGuid().ToString(); ExternalDirectoryObjectId = [guid]::NewGuid().ToString(); RecipientType = 'MailUniversalDistributionGroup'
        RecipientTypeDetails = 'MailUniversalDistributionGroup'; GroupType = 'Universal'; Members = $Members
    }
}

# A tenant as it is before anybody installs: initial domain, no connector, no rule. The first one is where an interactive
# sign-in without a name leads.
function Add-StandInTenant {
    param(
        [string]$TenantId = [guid]::NewGuid().ToString(), [string]$Organization = 'contoso.onmicrosoft.com',
        [string[]]$AcceptedDomains = @('contoso.com', 'contoso.onmicrosoft.com'), [string]$Environment = 'O365Default', [string]$User = 'admin@contoso.com',
        [string]$AppId = '', [string[]]$Groups = @()
    )
    $tenant = @{
        TenantId = $TenantId; Organization = $Organization; AcceptedDomains = $AcceptedDomains; Environment = $Environment; Users = @($User); Partners = @()
        Apps = @{}; UnsetText = ''; NoInbound = $false; Arc = @(); Groups = New-Object System.Collections.ArrayList
        Inbound = New-Object System.Collections.ArrayList; Outbound = New-Object System.Collections.ArrayList
        Rules = New-Object System.Collections.ArrayList; Traces = New-Object System.Collections.ArrayList; TraceQueries = @()
        OrganizationConfig = [ordered]@{ Name = $Organization; Identity = $Organization; DisplayName = $Organization; IsDehydrated = $false; RejectDirectSend = $false; GuidName = $TenantId }
        TransportConfig = [ordered]@{ Name = 'Transport Settings'; MessageExpiration = '1.00:00:00'; ExternalPostmasterAddress = $null; SmtpClientAuthenticationDisabled = $true }
        FilterPolicies = @([ordered]@{ Name = 'Default'; Identity = 'Default'; IPAllowList = @(); IPBlockList = @(); EnableSafeList = $false })
        RemoteDomains = @([ordered]@{ Name = 'Default'; Identity = 'Default'; DomainName = '*'; TNEFEnabled = $null; AllowedOOFType = 'External' })
        Dkim = @(); OnPremises = @(); IntraOrganization = @(); Blocked = @()
        RoleAssignments = @('Transport Rules', 'Remote and Accepted Domains', 'Transport Hygiene', 'Security Admin' | ForEach-Object {
            [ordered]@{ Name = "$_-Organization Management"; Role = $_; RoleAssigneeName = 'Organization Management'; Enabled = $true }
        })
    }
    if ($AppId) { $tenant.Apps[$AppId] = @{ Role = $true } }
    foreach ($address in $Groups) { [void]$tenant.Groups.Add((New-StandInGroup -Name ($address -split '@')[0] -Address $address -Members @($User))) }
    if ($script:World.Tenants.Count -eq 0) { $script:World.SignsIn = $User }
    $script:World.Tenants[$TenantId] = $tenant
    $tenant
}

# The tenant itself, to be looked at and changed; without -TenantId the first one.
function Get-StandInTenant {
    param([string]$TenantId)
    if ($TenantId) { return $script:World.Tenants[$TenantId] }
    @($script:World.Tenants.Values)[0]
}

# Changes a property of a connector or rule behind the scripts' back. -Kind: Inbound, Outbound, Rules.
function Set-StandInProperty {
    param([string]$Kind, [string]$Name, [string]$Property, $Value, [string]$TenantId)
    $tenant = Get-StandInTenant -TenantId $TenantId
    $stored = Find-StandInObject -List $tenant[$Kind] -Identity $Name -What $Kind
    if ($Property -eq 'Priority') { Move-StandInRule -Tenant $tenant -Rule $stored -Priority $Value; return }
    if (-not $stored.Contains($Property)) { throw "a $Kind object has no property $Property" }
    if ($Value -is [array]) { $Value = ConvertTo-StandInList $Value }
    $stored[$Property] = $Value
}

# The calls since the start or the last Clear-StandInCall; -Changes: those that change a tenant; -Name: of one cmdlet.
function Get-StandInCall {
    param([switch]$Changes, [string]$Name)
    foreach ($call in $script:World.Calls) {
        if ($Changes -and -not $call.Changes) { continue }
        if ($Name -and $call.Cmdlet -ne $Name) { continue }
        $call
    }
}

function Clear-StandInCall { $script:World.Calls.Clear() }

# The n-th call of a cmdlet ('*': of any) fails, before or after it has done its work. Raised once.
function Set-StandInFault {
    param(
        [string]$Cmdlet = '*', [int]$Call = 1, [ValidateSet('Before', 'After')][string]$When = 'Before',
        [string]$Message = 'A server side error has occurred because of which the operation could not be completed. Please try again after some time.', [string]$Kind = 'ServerSideError'
    )
    [void]$script:World.Faults.Add([pscustomobject]@{ Cmdlet = $Cmdlet; Call = $Call; When = $When; Message = $Message; Kind = $Kind; Seen = 0; Raised = $false })
}

function Get-StandInFault { $script:World.Faults }

# The time in the service, UTC.
function Set-StandInClock {
    param([datetime]$Utc)
    $script:World.Clock = ConvertTo-StandInUtc $Utc
}

# What Validate-OutboundConnector finds from now on.
function Set-StandInValidation {
    param([bool]$Connect = $true, [bool]$Send = $true, [string]$Text = '', [string]$TraceStatus = 'Delivered', [object[]]$Event = @())
    $script:World.Validation = @{ Connect = $Connect; Send = $Send; Text = $Text; TraceStatus = $TraceStatus; Events = $Event }
}

# A session that somebody else has opened in this window, or changes one that is open (State, TokenStatus, IsEopSession).
function Set-StandInConnection {
    param([string]$TenantId, [string]$User, [string]$Prefix = '', [string]$TokenStatus = 'Active', [string]$State = 'Connected', [bool]$IsEopSession = $false)
    $tenant = Get-StandInTenant -TenantId $TenantId
    if (-not $User) { $User = @($tenant.Users)[0] }
    Add-StandInConnection -Tenant $tenant -User $User -AppId '' -Delegated '' -Prefix $Prefix
    $made = $script:World.Connections[$script:World.Connections.Count - 1]
    $made['TokenStatus'] = $TokenStatus
    $made['State'] = $State
    $made['IsEopSession'] = $IsEopSession
    Update-StandInModule
}

function Get-StandInConnection { foreach ($one in $script:World.Connections) { [pscustomobject]$one } }

# Everything a script may have changed, as one text without times and generated ids: equal texts, equal tenants.
function Get-StandInSnapshot {
    param([string]$TenantId)
    $tenant = Get-StandInTenant -TenantId $TenantId
    $rows = @()
    foreach ($kind in 'Inbound', 'Outbound', 'Rules') {
        foreach ($one in $tenant[$kind]) {
            $copy = [ordered]@{ Kind = $kind }
            foreach ($key in $one.Keys) { if ($key -notmatch '^(Guid|ImmutableId|When.*|LastValidationTimestamp)$' -and $null -ne $one[$key]) { $copy[$key] = $one[$key] } }
            $rows += $copy
        }
    }
    $rows += [ordered]@{ Kind = 'Arc'; Sealers = @($tenant.Arc) }
    $rows | ForEach-Object { ConvertTo-Json -InputObject $_ -Depth 5 -Compress }
}
